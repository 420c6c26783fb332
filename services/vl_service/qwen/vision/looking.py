"""Who sees pictures for which role: the checkpoint's own tower in its fastest form, or a vision service elsewhere."""

import torch

from contracts.describe import CacheResult
from contracts.models import VLModelInfo
from engines.store.store import EngineStore
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.checkpoint import Checkpoint, public_id, size_limits
from vl_service.qwen.engines.choice import choose_tower, situation_of
from vl_service.qwen.fast.forms import try_form
from vl_service.qwen.fast.tower import FastTower
from vl_service.qwen.quantize import memory_of
from vl_service.qwen.vision.cached import CachedVision
from vl_service.qwen.vision.features import Vision, expected_of, fingerprint, write_features
from vl_service.qwen.vision.in_torch import TorchVision
from vl_service.qwen.vision.remote import RemoteVision
from vl_service.qwen.vision.tower import Tower, load_tower, tower_of
from vl_service.settings import Settings


def open_vision(checkpoint: Checkpoint, settings: Settings, *, fast: bool) -> Vision:
    """For a checkpoint's language model. Raises `EngineRefused` where `VL_ENGINE` names what cannot run."""
    if settings.role != "language":
        return _own(tower_of(checkpoint, image_tokens=settings.image_tokens), settings, fast=fast)
    size = size_limits(checkpoint.image_processor, settings.image_tokens)
    expected = expected_of(
        checkpoint.model.config, processor=fingerprint(checkpoint.image_processor, size),
        revision=checkpoint.tower_revision, dtype=checkpoint.dtype)
    return CachedVision(RemoteVision(settings, expected), expected, checkpoint.device, settings)


def wants_fast(settings: Settings, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether our own layers are worth trying."""
    return settings.fast_layers and device.type == "cuda" and dtype == torch.bfloat16


def feature_file(vision: Vision, picture: DecodedImage, deadline: Deadline) -> tuple[bytes, CacheResult]:
    """See `backend.FeatureBackend.features`."""
    seen = vision.features_of(picture, deadline)
    return write_features(seen), seen.cache


class VisionBackend:
    """The vision role: a tower, and no language model."""

    concurrent = True

    def __init__(self, tower: Tower, vision: Vision, *, id: str) -> None:
        self._vision = vision
        self._info = VLModelInfo(
            id=id, revision=tower.revision, engine=f"transformers-{tower.device.type}",
            dtype=str(tower.dtype).removeprefix("torch."), memory_bytes=memory_of(tower.module), tasks=[],
            languages=[], profiles=[])

    @property
    def info(self) -> VLModelInfo:
        """Which tower this is, and what computes it now."""
        return self._info.model_copy(update={
            "vision_engine": self._vision.engine, "vision_engine_reason": self._vision.reason})

    def features(self, picture: DecodedImage, deadline: Deadline) -> tuple[bytes, CacheResult]:
        """See `backend.FeatureBackend.features`."""
        deadline.check()
        return feature_file(self._vision, picture, deadline)


def load_vision(settings: Settings) -> VisionBackend:
    """Load the tower of the checkpoint that `VL_MODEL` names. Raises as `load_tower`, and `EngineRefused`."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tower = load_tower(settings)
    vision = _own(tower, settings, fast=wants_fast(settings, tower.device, tower.dtype))
    return VisionBackend(tower, vision, id=public_id(settings.model))


def _own(tower: Tower, settings: Settings, *, fast: bool) -> Vision:
    return CachedVision(_seeing(tower, settings, fast=fast), tower.expected, tower.device, settings)


def _seeing(tower: Tower, settings: Settings, *, fast: bool) -> Vision:
    store = EngineStore(settings.engine_store_dir.resolve())
    choice = choose_tower(settings.engine, store, situation_of(tower.revision, tower.device.type))
    windowed, reason = None, choice.reason
    if fast and choice.target is None:
        windowed, form = try_form(lambda: in_windows(tower))
        reason = "; ".join(filter(None, [reason, form or "windows of a size at once"]))
    in_torch = TorchVision(tower, reason=reason, fast=windowed)
    if choice.target is None:
        return in_torch
    # What runs engines is installed where some are built.
    from vl_service.qwen.engines.vision import EngineVision, opener

    return EngineVision(in_torch, choice, opener(store, tower.device, settings.threads))


def in_windows(tower: Tower) -> FastTower:
    """Its fast form, tried once. Raises `NotImplementedError` where there is none."""
    fast = FastTower(tower.module)
    projection = tower.module.patch_embed.proj.weight
    with torch.inference_mode():  # compiles what a picture needs
        fast(projection.new_zeros(16, projection[0].numel()), torch.tensor([[1, 4, 4]]))
    return fast
