"""A checkpoint in the hub layout of Wan: where it is, its JSON files, and a revision that names its content."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engine_store.revisions import content_hash
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable

EMBEDDED = "embedded"
CARD_NAME = "stillmotion.json"
CONFIG_NAMES = (
    "model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
WEIGHT_FOLDERS = ("transformer", "vae", "text_encoder")

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFolder:
    """A checkpoint whose JSON files are on disk."""

    name: str
    """Hub id, or the folder's name."""
    path: Path
    hub_id: str | None
    revision: str

    def read_json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file `name`; raises `ModelUnavailable` if there is none."""
        return _read_json(self.path / name)


def open_checkpoint(model: str, models_dir: Path) -> CheckpointFolder:
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


def _local(path: Path) -> CheckpointFolder:
    missing = [name for name in CONFIG_NAMES if not (path / name).is_file()]
    missing += [f"{name}/*.safetensors" for name in WEIGHT_FOLDERS if not any((path / name).glob("*.safetensors"))]
    if missing:
        raise ModelUnavailable(f"The checkpoint at {path} lacks {', '.join(missing)}; it needs the Wan hub layout.")
    # A folder of the hub's cache is named by its commit.
    revision = path.name if _SNAPSHOT.fullmatch(path.name) else content_hash(path)
    return CheckpointFolder(name=path.name, path=path, hub_id=None, revision=revision)


def _from_hub(hub_id: str, revision: str | None) -> CheckpointFolder:
    try:
        path = Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*CONFIG_NAMES, CARD_NAME]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        known_absent = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError)
        raise (ModelUnavailable if known_absent else ModelNotYetAvailable)(
            f"{hub_id} is neither a folder here nor readable from the model hub ({type(error).__name__}); check the "
            "id and the network, or download it and set VIDEO_MODEL to the folder."
        ) from error
    missing = [name for name in CONFIG_NAMES if not (path / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{hub_id} lacks {', '.join(missing)}; it needs the Wan hub layout of diffusers.")
    return CheckpointFolder(name=hub_id, path=path, hub_id=hub_id, revision=path.name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} does not hold a JSON object.")
    return value
