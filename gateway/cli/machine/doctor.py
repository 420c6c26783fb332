"""`stillmotion doctor`: what this machine has, what is missing, and what will be slow and why."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.machine import look
from gateway.cli.serving.stack import StackSettings, served_names, service_specs

Verdict = Literal["good", "slow", "bad"]
_MARKS: dict[Verdict, tuple[str, str]] = {
    "good": ("ok", "green"), "slow": ("slow", "yellow"), "bad": ("no", "bold red"),
}
_NEEDED = ("torch", "transformers", "diffusers", "av", "gradio", "c2pa-python")
_ENGINES = {"onnxruntime": "ONNX Runtime", "tensorrt-cu13": "TensorRT", "tensorrt-rtx-cu13-bindings": "TensorRT-RTX"}
_HOPPER, _FLASH = 9.0, "flash-attn-4"
_DISK_GIB, _MEMORY_GIB = 2.0, 4.0
_SMALL_GPU_GIB, _LARGE_GPU_GIB = 8.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at, and what to do about it, if anything."""

    what: str
    verdict: Verdict
    said: str


def doctor(settings: StackSettings, console: Console, *, as_json: bool) -> int:
    """Print every finding; the exit status is 1 where something keeps Stillmotion from working."""
    found = list(findings(settings, os.environ))
    if as_json:
        console.print_json(data=[asdict(finding) for finding in found])
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in found:
            mark, style = _MARKS[finding.verdict]
            table.add_row(Text(mark, style=style), Text(finding.what, style="bold"), Text(finding.said))
        console.print(table)
    return 1 if any(finding.verdict == "bad" for finding in found) else 0


def findings(settings: StackSettings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which it matters."""
    gpus = look.gpus()
    versions = look.versions(_NEEDED)
    yield Finding(what="system", verdict="good", said=f"{look.system()}, {look.processors()} processors")
    yield _memory()
    yield _disk(Path(settings.stillmotion_data))
    yield from _packages(versions)
    yield from (_gpu(gpu) for gpu in gpus)
    yield from _torch(versions["torch"], gpus)
    yield _engines()
    if any(gpu.capability == _HOPPER for gpu in gpus) and look.versions([_FLASH])[_FLASH] is None:
        yield Finding(what="attention", verdict="slow", said=f"{_FLASH} is missing: pip install 'stillmotion[flash]'; "
                      "without it dense attention takes a quarter longer on this GPU")
    for variable, model in _models(environment):
        yield _model(variable, model, gpus, environment)
    for spec in service_specs(settings, served_names(settings)):
        host = urlsplit(spec.url).hostname or spec.host
        yield _port(spec.name, host, spec.port, spec.port_variable, look.is_listening)


def _memory() -> Finding:
    total, free = look.memory_gib()
    said = f"{total:.0f} GiB, {free:.1f} GiB of it available"
    if 0 < free < _MEMORY_GIB:
        return Finding(what="memory", verdict="slow", said=f"{said}: end other programs; the demo alone takes 3 GiB")
    return Finding(what="memory", verdict="good", said=said)


def _disk(folder: Path) -> Finding:
    free = look.free_disk_gib(folder)
    said = f"{free:.1f} GiB free for {folder.absolute()}"
    if free < _DISK_GIB:
        return Finding(what="disk", verdict="bad", said=f"{said}: make room, or set STILLMOTION_DATA to another disk")
    return Finding(what="disk", verdict="good", said=said)


def _packages(versions: Mapping[str, str | None]) -> Iterator[Finding]:
    missing = [name for name, version in versions.items() if version is None]
    if not missing:
        yield Finding(what="packages", verdict="good", said=", ".join(f"{n} {v}" for n, v in versions.items()))
    for name in missing:
        extra = {"gradio": "studio", "c2pa-python": "gateway"}.get(name, "vl,video")
        verdict: Verdict = "slow" if name == "gradio" else "bad"
        yield Finding(what="packages", verdict=verdict, said=f"{name} is missing: pip install 'stillmotion[{extra}]'")


def _gpu(gpu: look.Gpu) -> Finding:
    said = f"{gpu.name}, {gpu.memory_gib:.0f} GiB ({gpu.free_gib:.0f} free), driver {gpu.driver}"
    if gpu.memory_gib < _SMALL_GPU_GIB:
        return Finding(what="GPU", verdict="slow", said=f"{said}: too small for the published video models")
    engine = "TensorRT" if gpu.capability in (9.0, 10.0, 8.0) else "TensorRT-RTX"
    size = "14B" if gpu.memory_gib >= _LARGE_GPU_GIB else "1.3B"
    return Finding(what="GPU", verdict="good", said=f"{said}: models up to {size}; engines by {engine}")


def _torch(version: str | None, gpus: list[look.Gpu]) -> Iterator[Finding]:
    if not gpus:
        yield Finding(what="GPU", verdict="slow", said="none: the embedded demo renders in seconds, a published model "
                      "takes an hour for a clip")
    elif version is not None and "+cpu" in version:
        yield Finding(what="torch", verdict="bad", said=f"torch {version} is the build without a GPU: pip install "
                      "--force-reinstall torch, from an index that has the CUDA build")


def _engines() -> Finding:
    there = [name for package, name in _ENGINES.items() if look.versions([package])[package]]
    said = ", ".join(there) or "torch alone: pip install 'stillmotion[engines]' adds ONNX Runtime"
    return Finding(what="engines", verdict="good", said=said)


def _models(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    several = [item.strip() for item in environment.get("VIDEO_MODELS", "").split(",") if item.strip()]
    for model in several or [environment.get("VIDEO_MODEL") or "embedded"]:
        yield ("VIDEO_MODELS" if several else "VIDEO_MODEL"), model
    if not environment.get("VL_REMOTE_URL"):
        yield "VL_MODEL", environment.get("VL_MODEL") or "embedded"


def _model(variable: str, model: str, gpus: list[look.Gpu], environment: Mapping[str, str]) -> Finding:
    place = look.model_place(model, environment)
    what = f"{variable}={model}"
    if place is None and model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return Finding(
            what=what, verdict="slow", said=f"will be downloaded at the start: stillmotion models pull {model}")
    if place is None:
        return Finding(what=what, verdict="bad", said="there is no such folder")
    if model != "embedded" and not gpus:
        return Finding(what=what, verdict="slow", said=f"{place}: on processors alone a clip takes very long")
    return Finding(what=what, verdict="good", said=place)


def _port(name: str, host: str, port: int, variable: str, is_listening: Callable[[str, int], bool]) -> Finding:
    if not is_listening(host, port):
        return Finding(what=f"port {port}", verdict="good", said=f"free for the {name}")
    return Finding(
        what=f"port {port}", verdict="slow",
        said=f"something listens there: Stillmotion as it runs, or else choose another for the {name} by {variable}")
