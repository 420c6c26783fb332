"""What the server is and does, as tables."""

from collections.abc import Sequence
from html import escape

from contracts.models import DeviceInfo, Health, ListedAbsentModel, ListedVideoModel, ListedVLModel, ModelList
from studio.words import Words

_GIB = 2**30
_COLUMNS = ("tasks", "state", "memory", "engine", "device")


def server(health: Health, models: ModelList, running: int, queued: int, words: Words) -> str:
    """Ready or why not, the visitor's own queue, and every model."""
    kind, state = ("good", "server_ready") if health.ready else ("bad", "server_not_ready")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in health.reasons)
    rows = "".join(_row(model, words) for model in models.data)
    heads = "".join(f'<th scope="col">{escape(words[name])}</th>' for name in ("model", *_COLUMNS))
    return (
        f'<p class="sm-notice sm-{kind}" role="status"><strong>{escape(words[state])}</strong></p><ul>{reasons}</ul>'
        f'<p>{escape(words["queue"])}: {escape(words("queue_now", running=running, queued=queued))}</p>'
        f'<div class="sm-scroll" tabindex="0" role="region" aria-label="{escape(words["models"])}">'
        f'<table class="sm-models"><caption>{escape(words["models"])}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(model: ListedVideoModel | ListedVLModel | ListedAbsentModel, words: Words) -> str:
    if isinstance(model, ListedAbsentModel):
        cells = [words["video"], f"{words['absent']}: {model.reason}", memory(model.memory_bytes), "", ""]
    elif isinstance(model, ListedVLModel):
        cells = [words["vl"], words["loaded"], memory(model.memory_bytes), f"{model.engine}, {model.dtype}",
                 devices(model.devices, words)]
    else:
        tasks = ", ".join(words[task] for task in model.tasks)
        cells = [tasks, words[model.state], memory(model.memory_bytes), f"{model.engine}, {model.dtype}",
                 devices(model.devices, words) if model.state == "loaded" else ""]
    named = zip(_COLUMNS, cells, strict=True)
    told = "".join(f'<td data-column="{escape(words[name])}">{escape(cell)}</td>' for name, cell in named)
    return f'<tr><th scope="row">{escape(model.id)}</th>{told}</tr>'


def devices(found: Sequence[DeviceInfo], words: Words) -> str:
    """Such as NVIDIA H200: 61.2 of 139.8 GiB free; nothing where it is not known."""
    return "; ".join(_device(device, words) for device in found)


def _device(device: DeviceInfo, words: Words) -> str:
    if device.free_bytes is None or device.memory_bytes is None:
        return " ".join(filter(None, [device.name, memory(device.memory_bytes)]))
    return words("device_free", device=device.name, free=f"{device.free_bytes / _GIB:.1f}",
                 all=memory(device.memory_bytes))


def memory(num_bytes: int | None) -> str:
    """Such as 2.7 GiB; nothing where it is not known."""
    return "" if num_bytes is None else f"{num_bytes / _GIB:.1f} GiB"
