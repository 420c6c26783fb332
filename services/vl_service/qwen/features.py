"""What the vision tower sees in a picture, and the one way to it: `features_of`.

    seen = vision.features_of(picture)      # a tower here, a cache before it, or a vision service elsewhere
    seen.embeddings, seen.grid_thw, seen.deepstack, seen.revision, seen.processor
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
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
