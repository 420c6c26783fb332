"""`stillmotion models pull ID`: from the hub or a mirror (HF_ENDPOINT), with licence and size said first."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from gateway.cli.machine.download import download
from web.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GIB = 2**30
_SPARE_BYTES = _GIB // 4
_COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
# The same weights in forms that nothing here reads.
_UNUSED = ("*.msgpack", "*.h5", "*.onnx", "*.onnx_data", "*.gguf", "*.ckpt", "flax_model*", "tf_model*", "rust_model*")
_OLD = (".bin",)
_LOCK, _NOTE = ".stillmotion-pull.lock", ".stillmotion-pull.json"


class PullFailed(Exception):
    """Nothing usable came; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a repository; `sha256` in hex where the hub tells it."""

    name: str
    num_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the hub says of a model, and what of it is to be had."""

    id: str
    revision: str
    licence: str
    gated: bool
    files: tuple[File, ...]

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.num_bytes for file in self.files)


def ask_hub(model: str, revision: str | None) -> Model:
    """Look the model up. Raises `PullFailed`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        told = HfApi().model_info(model, revision=revision, files_metadata=True, timeout=30)
    except RepositoryNotFoundError as error:
        raise PullFailed(
            f"The hub has no {model}, or not for you: check the id; of a gated model set HF_TOKEN.") from error
    except HFValidationError as error:
        raise PullFailed(f"{model} is no id of a model: write OWNER/NAME.") from error
    except Exception as error:  # of the HTTP client that huggingface_hub brings, whichever it is
        raise PullFailed(f"The hub cannot be asked ({type(error).__name__}: {error}): {_UNREACHABLE}") from error
    return Model(
        id=model, revision=told.sha or revision or "main", licence=_licence(told), gated=bool(told.gated),
        files=tuple(_wanted(told.siblings or [])),
    )


_UNREACHABLE = "check the network, or set HF_ENDPOINT to a mirror that you reach."


def pull(model: Model, to: Path | None, console: Console) -> Path:
    """Download what is missing, going on where an earlier try broke off, and check every file; returns the folder.

    Raises:
        PullFailed: no room, the connection broke, or a file is not what the hub says it is (it is removed).
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    place = to or Path(HF_HUB_CACHE)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / _LOCK):  # several pods may pull into one volume: the second finds everything there
        return _pull(model, to, place, console)


def pulled_before(model: str, revision: str | None, to: Path) -> bool:
    """Whether `to` has the model, whole and checked by an earlier pull, so that nobody need be asked."""
    try:
        note = json.loads((to / _NOTE).read_text(encoding="utf-8"))
        sizes = {name: (to / name).stat().st_size for name in note["files"]}
    except (OSError, ValueError):
        return False
    return note["id"] == model and revision in (None, note["revision"]) and sizes == note["files"]


def _pull(model: Model, to: Path | None, place: Path, console: Console) -> Path:
    from huggingface_hub import snapshot_download

    free = shutil.disk_usage(place).free
    if free < model.num_bytes + _SPARE_BYTES:
        raise PullFailed(
            f"{place} has {free / _GIB:.1f} GiB free and {model.num_bytes / _GIB:.1f} GiB are needed: make room, or "
            "name another place with --to.")
    try:
        with Progress(*_COLUMNS, console=console) as progress:
            _get_weights(model, to, place, progress)
        # The small files; of those that are there, it makes what its cache or the folder wants to know.
        folder = Path(snapshot_download(
            model.id, revision=model.revision, local_dir=to, allow_patterns=[file.name for file in model.files],
            max_workers=4))
    except Exception as error:  # of the HTTP client, the disk or the hub
        raise PullFailed(
            f"The download broke off ({type(error).__name__}: {error}). Run the same command again: it goes on where "
            "it stopped.") from error
    _verify(model, folder)
    if to is not None:
        files = {file.name: file.num_bytes for file in model.files}
        note = {"id": model.id, "revision": model.revision, "files": files}
        replace_file(to / _NOTE, json.dumps(note).encode())
    return folder


def _get_weights(model: Model, to: Path | None, place: Path, progress: Progress) -> None:
    """The files that the hub knows by their SHA-256: in the folder `to`, or where the hub's cache keeps them."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    headers = {name: str(value) for name, value in build_hf_headers().items()}
    blobs = place / f"models--{model.id.replace('/', '--')}" / "blobs"
    for file in model.files:
        if file.sha256 is None:
            continue
        path = blobs / file.sha256 if to is None else to / file.name
        task = progress.add_task(file.name, total=file.num_bytes)
        if path.exists():
            progress.advance(task, file.num_bytes)
            continue
        url = hf_hub_url(model.id, file.name, revision=model.revision)
        download(url, path, file.num_bytes, headers, partial(progress.advance, task))


def _verify(model: Model, folder: Path) -> None:
    for file in model.files:
        path = folder / file.name
        if path.stat().st_size == file.num_bytes and (file.sha256 is None or _sha256(path) == file.sha256):
            continue
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise PullFailed(f"{file.name} is not what the hub says it is; it was removed. Run the same command again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(siblings: "Sequence[Any]") -> "Iterable[File]":
    names = {sibling.rfilename for sibling in siblings}
    folders = {Path(name).parent for name in names if name.endswith(".safetensors")}
    for sibling in siblings:
        path = Path(sibling.rfilename)
        if any(path.match(pattern) for pattern in _UNUSED) or (path.suffix in _OLD and path.parent in folders):
            continue
        lfs = sibling.lfs
        yield File(name=sibling.rfilename, num_bytes=sibling.size or 0, sha256=lfs.sha256 if lfs else None)


def _licence(told: Any) -> str:
    named = next((tag.removeprefix("license:") for tag in told.tags or [] if tag.startswith("license:")), None)
    return named or "not named: read the model's page before you use it"


def describe(model: Model, console: Console) -> None:
    """Say what is about to be had."""
    console.print(Text.assemble((model.id, "bold"), f" at {model.revision[:12]}"))
    gated = " (gated: accept it on the model's page)" if model.gated else ""
    console.print(Text(f"  licence  {model.licence}{gated}"))
    console.print(Text(f"  size     {model.num_bytes / _GIB:.2f} GiB in {len(model.files)} files"))
