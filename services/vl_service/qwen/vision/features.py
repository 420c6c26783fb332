"""What the vision tower sees in a picture, and the one way to it: `features_of`.

    seen = vision.features_of(picture)      # a tower here, a cache before it, or a vision service elsewhere
    seen.embeddings, seen.grid_thw, seen.deepstack, seen.revision, seen.processor
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from contracts.describe import CacheResult
from vl_service.backend import Deadline
from vl_service.images import DecodedImage

NEVER = Deadline(at=float("inf"))
_OF_THE_PIXELS = (  # what else a processor knows, such as the library's version, changes no number
    "do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std",
    "do_convert_rgb", "patch_size", "temporal_patch_size", "merge_size",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One picture through the vision tower: all that the language model needs of it."""

    embeddings: torch.Tensor
    """[N, C], one row for each token of the picture."""
    grid_thw: torch.Tensor
    """int64 [1, 3] on the CPU: frames, rows and columns of patches."""
    deepstack: tuple[torch.Tensor, ...] = ()
    """Of Qwen3-VL, each as `embeddings`: for the outputs of the language model's first layers."""
    revision: str
    """Of the tower's weights."""
    processor: str
    """Fingerprint of what made patches of the picture; see `fingerprint`."""
    names: tuple[str, ...] = field(default_factory=lambda: (uuid4().hex,))
    """Of the pictures, one for each row of `grid_thw`; equal where the features are known to be."""
    cache: CacheResult = "miss"

    @property
    def num_tokens(self) -> int:
        return len(self.embeddings)

    @property
    def num_bytes(self) -> int:
        return sum(part.nbytes for part in (self.embeddings, *self.deepstack))

    @property
    def encoded(self) -> Any:
        """As `get_image_features` of all families returns them: tuples, one part for each picture."""
        output: Any = BaseModelOutputWithDeepstackFeatures
        return output(
            pooler_output=(self.embeddings,), deepstack_features=[(level,) for level in self.deepstack])

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.dtype

    def to(self, device: torch.device) -> "Features":
        """The same on another device."""
        return replace(self, embeddings=self.embeddings.to(device),
                       deepstack=tuple(level.to(device) for level in self.deepstack))


class Vision(Protocol):
    """Where features come from."""

    @property
    def engine(self) -> str:
        """What computes them, such as `torch-cpu` or `onnx-cpu`."""
        ...

    @property
    def reason(self) -> str:
        """Why that, in words."""
        ...

    def features_of(self, picture: DecodedImage, deadline: Deadline = NEVER) -> Features:
        """Raises what the engine or the vision service behind it does; `DeadlineExceededError` where it waited."""
        ...


def fingerprint(image_processor: Any, size: Mapping[str, int]) -> str:
    """16 hex digits of all that decides how pixels become patches; `size`: the limits in force, areas in pixels."""
    facts = {name: getattr(image_processor, name, None) for name in _OF_THE_PIXELS} | {"size": dict(size)}
    words = json.dumps(facts, sort_keys=True, default=lambda value: getattr(value, "value", None) or list(value))
    return hashlib.sha256(words.encode()).hexdigest()[:16]


class FeaturesRefusedError(Exception):
    """They are of another tower, processor, dtype or shape than the language model takes; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What features must be for a language model to read them."""

    revision: str
    processor: str
    dtype: torch.dtype
    channels: int
    num_levels: int
    """Of deepstack."""
    merge: int
    """Patches of a token, a side."""

    def check(self, found: Features) -> None:
        """Raises `FeaturesRefusedError`."""
        named = [
            ("revision", found.revision, self.revision, "give both roles the same checkpoint"),
            ("processor", found.processor, self.processor, "give both roles the same checkpoint and VL_IMAGE_TOKENS"),
            ("dtype", found.dtype, self.dtype, "set VL_DTYPE to one value for both roles"),
            ("deepstack levels", len(found.deepstack), self.num_levels, "give both roles the same checkpoint"),
        ]
        for name, is_, should_be, advice in named:
            if is_ != should_be:
                raise FeaturesRefusedError(f"{name} {is_}, not {should_be}: {advice}")
        tokens = int(found.grid_thw.prod()) // self.merge**2
        parts = {"embeddings": found.embeddings} | {
            f"deepstack.{index}": level for index, level in enumerate(found.deepstack)}
        for name, part in parts.items():
            if part.dtype != self.dtype or tuple(part.shape) != (tokens, self.channels):
                raise FeaturesRefusedError(
                    f"{name} {list(part.shape)} {part.dtype}, not {[tokens, self.channels]} {self.dtype}")


def expected_of(config: Any, *, processor: str, revision: str, dtype: torch.dtype) -> Expected:
    """Of the checkpoint with this config."""
    vision = config.vision_config
    return Expected(
        revision=revision, processor=processor, dtype=dtype, channels=config.text_config.hidden_size,
        num_levels=len(getattr(vision, "deepstack_visual_indexes", ())), merge=vision.spatial_merge_size)


def write_features(features: Features) -> bytes:
    """As a safetensors file: `embeddings`, `grid_thw`, `deepstack.0` …; its metadata name revision and processor."""
    tensors = {"embeddings": features.embeddings, "grid_thw": features.grid_thw}
    tensors |= {f"deepstack.{index}": level for index, level in enumerate(features.deepstack)}
    return save({name: part.detach().cpu().contiguous() for name, part in tensors.items()},
                {"revision": features.revision, "processor": features.processor})


def read_features(body: bytes, expected: Expected) -> Features:
    """Of a file as `write_features` makes it, on the CPU. Raises `FeaturesRefusedError`."""
    try:
        tensors = load(body)
        (length,) = struct.unpack("<Q", body[:8])
        told = json.loads(body[8 : 8 + length])["__metadata__"]
        features = Features(
            embeddings=tensors["embeddings"], grid_thw=tensors["grid_thw"],
            deepstack=tuple(tensors[f"deepstack.{index}"] for index in range(len(tensors) - 2)),
            revision=told["revision"], processor=told["processor"])
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise FeaturesRefusedError(f"they are no features: {error}") from error
    if features.grid_thw.shape != (1, 3) or features.grid_thw.dtype != torch.int64 or int(features.grid_thw.min()) < 1:
        raise FeaturesRefusedError(f"grid_thw {features.grid_thw.tolist()} is not the grid of one picture")
    expected.check(features)
    return features
