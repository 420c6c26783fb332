"""A checkpoint on disk or on the hub: where it is, its JSON files, and a revision that names its content."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engines.store.revisions import base_of, content_hash
from video_service.weights.lora import Lora
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable

if TYPE_CHECKING:  # it needs torch
    from video_service.weights.host import HostCopies

EMBEDDED = "embedded"
CARD_NAME = "stillmotion.json"
_JSON_PATTERNS = ("model_index.json", CARD_NAME, "*/config.json", "*/*_config.json")

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint whose JSON files are on disk; what a family recognises it by, and loads it from."""

    name: str
    """Hub id, or the folder's name."""
    path: Path
    hub_id: str | None
    revision: str
    """With `lora` in it: see `video_service.weights.lora`."""
    lora: Lora | None = None
    """To be merged into the denoiser's weights."""
    host: "HostCopies | None" = None
    """Where parts that were read are kept."""

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file `name`; raises `ModelUnavailable` if there is none."""
        return _read_json(self.path / name)

    def find_json(self, name: str) -> dict[str, Any]:
        """The same, or an empty object where there is no such file."""
        return self.read_json(name) if self.has(name) else {}

    def named(self, pattern: str) -> list[Path]:
        """The files of that name on disk, in order."""
        return sorted(self.path.glob(pattern))

    def require(self, configs: Iterable[str], weight_folders: Iterable[str]) -> None:
        """Raise `ModelUnavailable` unless all are there; the weights of a hub id come when they are loaded."""
        missing = [name for name in configs if not self.has(name)]
        if self.hub_id is None:
            missing += [f"{name}/*.safetensors" for name in weight_folders if not self.named(f"{name}/*.safetensors")]
        if missing:
            where = f"The checkpoint at {self.path}" if self.hub_id is None else self.hub_id
            raise ModelUnavailable(f"{where} lacks {', '.join(missing)}; it needs the hub layout of diffusers.")

    def fetch(self, folders: Iterable[str]) -> Path:
        """The folder, with the weights in `folders` downloaded; raises `ModelNotYetAvailable` where the hub is away."""
        if self.hub_id is None:
            return self.path
        patterns = ["*.json", "tokenizer/*", *(f"{name}/*.safetensors" for name in folders)]
        try:
            return Path(snapshot_download(self.hub_id, revision=base_of(self.revision), allow_patterns=patterns))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelNotYetAvailable(f"the weights of {self.hub_id} cannot be downloaded: {error}") from error


def open_checkpoint(model: str, models_dir: Path) -> CheckpointFiles:
    """Find the checkpoint that `model` names: `embedded`, a folder, or a hub id with an optional `@revision`.

    Raises `ModelUnavailable`; where the hub cannot be reached, `ModelNotYetAvailable`.
    """
    path = models_dir / "video" if model == EMBEDDED else Path(model).expanduser()
    if path.is_dir():
        return _local(path.resolve())
    match = _HUB_ID.fullmatch(model)
    if match is None:
        raise ModelUnavailable(
            f"There is no checkpoint folder at {path}; set VIDEO_MODEL to a folder that holds model_index.json, or to "
            "a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
        )
    return _from_hub(match["id"], match["revision"])


def public_id(model: str) -> str:
    """What a model is called of which nothing but its setting is known: the hub id, or the folder's name."""
    match = _HUB_ID.fullmatch(model)
    path = Path(model)
    return match["id"] if match is not None and not path.is_absolute() else path.name or model


def _local(path: Path) -> CheckpointFiles:
    # A folder of the hub's cache is named by its commit.
    revision = path.name if _SNAPSHOT.fullmatch(path.name) else content_hash(path)
    return CheckpointFiles(name=path.name, path=path, hub_id=None, revision=revision)


def _from_hub(hub_id: str, revision: str | None) -> CheckpointFiles:
    try:
        path = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_JSON_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        known_absent = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError)
        raise (ModelUnavailable if known_absent else ModelNotYetAvailable)(
            f"{hub_id} is neither a folder here nor readable from the model hub ({type(error).__name__}); check the "
            "id and the network, or download it and set VIDEO_MODEL to the folder."
        ) from error
    return CheckpointFiles(name=hub_id, path=path, hub_id=hub_id, revision=path.name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} does not hold a JSON object.")
    return value
