"""A picture through a Qwen-VL checkpoint's vision tower, in torch."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vl_service.images import DecodedImage
from vl_service.qwen.checkpoint import Checkpoint, size_limits
from vl_service.qwen.fast.tower import FastTower


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One picture through the vision tower: its output, and its patch grid `[1, 3]` (frames, rows, columns)."""

    encoded: Any
    grid_thw: torch.Tensor
    num_tokens: int


class Vision(Protocol):
    """Computes the tower."""

    @property
    def engine(self) -> str:
        """What computes it, such as `torch-cpu` or `onnx-cpu`."""
        ...

    @property
    def reason(self) -> str:
        """Why that, in words."""
        ...

    def see(self, picture: DecodedImage) -> Seen: ...


class TorchVision:
    """The tower as it was loaded, or its fast form."""

    def __init__(
        self, checkpoint: Checkpoint, *, image_tokens: int, reason: str = "", tower: FastTower | None = None
    ) -> None:
        """At most `image_tokens` for a picture."""
        self._checkpoint, self._tower = checkpoint, tower
        self._size = size_limits(checkpoint.image_processor, image_tokens)
        self.engine, self.reason = f"torch-{checkpoint.device.type}", reason

    def see(self, picture: DecodedImage) -> Seen:
        return self.encode(*self.patches(picture))

    def patches(self, picture: DecodedImage, *, share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture's patches [N, P] and its grid [1, 3], of `share` of the largest area at most."""
        longest = int(self._size["longest_edge"] * share)
        size = {"shortest_edge": min(self._size["shortest_edge"], longest), "longest_edge": longest}
        pixels = self._checkpoint.image_processor(images=[picture.rgb], size=size, return_tensors="pt")
        return pixels["pixel_values"], pixels["image_grid_thw"]

    def encode(self, pixels_NP: torch.Tensor, grid_thw: torch.Tensor) -> Seen:
        checkpoint = self._checkpoint
        pixels_NP = pixels_NP.to(checkpoint.device, checkpoint.dtype)
        if self._tower is not None:
            features: Any = (self._tower(pixels_NP, grid_thw),)  # one part for each picture
            return self.seen(BaseModelOutputWithPooling(pooler_output=features), grid_thw)
        encoded = checkpoint.model.model.get_image_features(
            pixel_values=pixels_NP, image_grid_thw=grid_thw.to(checkpoint.device), return_dict=True)
        return self.seen(encoded, grid_thw)

    def seen(self, encoded: Any, grid_thw: torch.Tensor) -> Seen:
        """What the language model takes: `encoded` as `get_image_features` returns it."""
        checkpoint = self._checkpoint
        return Seen(encoded=encoded, grid_thw=grid_thw.to(checkpoint.device),
                    num_tokens=int(grid_thw.prod()) // checkpoint.image_processor.merge_size**2)
