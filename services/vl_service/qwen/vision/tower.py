"""A checkpoint's vision tower: what it takes a picture with, and how it is read alone, without the language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from vl_service.qwen.checkpoint import (
    TOWER_PREFIXES,
    Checkpoint,
    UnsupportedCheckpointError,
    device_and_dtype,
    find_file,
    find_tower_revision,
    read_config,
    read_image_processor,
    size_limits,
    tower_files,
)
from vl_service.qwen.vision.features import Expected, expected_of, fingerprint
from vl_service.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """The vision side of a checkpoint."""

    module: Any
    """`model.visual` of transformers."""
    image_processor: Any
    size: Mapping[str, int]
    """Limits of a picture, areas in pixels."""
    expected: Expected
    """What its features are."""
    device: torch.device

    @property
    def revision(self) -> str:
        return self.expected.revision

    @property
    def dtype(self) -> torch.dtype:
        return self.expected.dtype


def tower_of(checkpoint: Checkpoint, *, image_tokens: int) -> Tower:
    """Of a checkpoint that is loaded whole; at most `image_tokens` for a picture."""
    size = size_limits(checkpoint.image_processor, image_tokens)
    expected = expected_of(
        checkpoint.model.config, processor=fingerprint(checkpoint.image_processor, size),
        revision=checkpoint.tower_revision, dtype=checkpoint.dtype)
    return Tower(module=checkpoint.model.model.visual, image_processor=checkpoint.image_processor, size=size,
                 expected=expected, device=checkpoint.device)


def load_tower(settings: Settings) -> Tower:
    """Of the checkpoint that `VL_MODEL` names, and nothing else of it.

    Raises:
        UnsupportedCheckpointError: another architecture, or weights that are missing or do not fit.
        OSError: not found, from transformers.
    """
    config, image_processor = read_config(settings), read_image_processor(settings)
    device, dtype = device_and_dtype(settings)
    size = size_limits(image_processor, settings.image_tokens)
    expected = expected_of(config, processor=fingerprint(image_processor, size),
                           revision=find_tower_revision(settings), dtype=dtype)
    return Tower(module=read_tower(settings, config, dtype).to(device), image_processor=image_processor, size=size,
                 expected=expected, device=device)


def empty_tower(config: Any) -> Any:
    """The tower without weights or memory: enough to lay pictures out."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config).model.visual


def read_tower(settings: Settings, config: Any, dtype: torch.dtype) -> Any:
    """The tower on the CPU. Raises `UnsupportedCheckpointError` for weights that are missing or do not fit."""
    with no_init_weights():  # random numbers for 700 million of them take a minute
        # Made as transformers makes it: tables that are no weights stay in float32.
        tower = type(empty_tower(config))._from_config(config.vision_config, dtype=dtype)
    try:
        tower.load_state_dict(_read_weights(settings))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UnsupportedCheckpointError(f"the vision tower of {settings.model} cannot be read: {error}") from error
    return tower.eval().requires_grad_(False)


def _read_weights(settings: Settings) -> dict[str, torch.Tensor]:
    """By their names in the tower. Files that hold none of them are not opened, nor downloaded."""
    weights: dict[str, torch.Tensor] = {}
    for name in tower_files(settings):
        path = find_file(settings, name)
        if path is None:
            raise ValueError(f"it has no {name}")
        with safe_open(path, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(TOWER_PREFIXES)]  # noqa: SIM118, for it is no mapping
            weights |= {key.partition("visual.")[2]: file.get_tensor(key) for key in keys}
    return weights
