"""What engines can be built of: the served model, or a checkpoint of a kind that has graphs and is not served."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine_store.revisions import content_hash
from video_service.catalog import find_model
from video_service.engines.families import WAN, family_of
from video_service.settings import VideoSettings
from video_service.weights.checkpoint import ModelUnavailable
from video_service.weights.device import Device, Dtype, pick_device, pick_dtype
from video_service.weights.lora import Lora


class Buildable(Protocol):
    """A checkpoint; `catalog.ModelSource` is one."""

    @property
    def id(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def hub_id(self) -> str | None: ...
    @property
    def revision(self) -> str: ...
    @property
    def lora(self) -> Lora | None: ...
    @property
    def device(self) -> Device: ...
    @property
    def dtype(self) -> Dtype: ...
    @property
    def max_sequence_length(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UnservedCheckpoint:
    """A checkpoint folder whose graphs are known but whose pipeline is not: engines of it serve other programs."""

    id: str
    folder: Path
    hub_id: None
    revision: str
    lora: None
    device: Device
    dtype: Dtype
    max_sequence_length: int
    temporal_scale: int


def find_buildable(settings: VideoSettings) -> Buildable:
    """What VIDEO_MODEL names. Raises `ModelUnavailable`."""
    try:
        return find_model(settings)
    except ModelUnavailable:
        found = _unserved(settings)
        if found is None:
            raise
        return found


def _unserved(settings: VideoSettings) -> UnservedCheckpoint | None:
    folder = Path(settings.model).expanduser().resolve()
    try:
        family = family_of(json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, ModelUnavailable):
        return None
    if family is WAN:
        return None  # of the kind that is served: what was wrong with it stands
    if settings.lora is not None:
        raise ModelUnavailable(f"{folder.name} is not served, and VIDEO_LORA is for served models only: unset it")
    device = pick_device(settings.device)
    return UnservedCheckpoint(
        id=folder.name, folder=folder, hub_id=None, revision=content_hash(folder), lora=None,
        device=device, dtype=pick_dtype(settings.dtype, device), max_sequence_length=family.text_tokens,
        temporal_scale=family.temporal_scale,
    )
