"""Wan2.1 FLF2V: from a first to a last image. CLIP sees both, and beside the noise lies [first, zeros..., last].

Source: https://github.com/Wan-Video/Wan2.1; numbers agree with `WanImageToVideoPipeline` given a `last_image`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from contracts.models import FrameRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement
from video_service.families.wan.files import (
    WAN_CONFIGS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.families.wan.model import WanModel
from video_service.layers.wan.codec import TEMPORAL_SCALE, encode_clip, normalised
from video_service.weights.checkpoint import CheckpointFiles

_SHIFT = 16.0  # the authors'; the converted repository says 3


class Wan21FLF2V:
    """The family. No engines: the exported encoder takes a still alone."""

    name = "wan2.1-flf2v"
    render_graphs: Sequence[str] = ()
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        sees_both = files.find_json("transformer/config.json").get("pos_embed_seq_len") is not None
        return sees_both and is_wan(files) and not has_experts(files) and not has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        return wan_spec(
            files, self.name, tasks=["flf2v"], sizes=["1280x720", "720x1280", "832x480", "480x832"],
            num_frames=FrameRange(minimum=1 + TEMPORAL_SCALE, maximum=81, default=81, step=TEMPORAL_SCALE),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "BetweenImages":
        return BetweenImages(**load_wan(self.spec(files), files, placement, WAN_PARTS, shift=_SHIFT))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "BetweenImages", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenImages(WanModel):
    """Every request has a `last_image`."""

    def condition(self, batch: Batch) -> torch.Tensor:
        """Mask and latents of [first, zeros..., last]; the mask has a channel for each frame of a latent frame."""
        latents_BCTHW = normalised(torch.cat([self._encoded(batch, index) for index in range(len(batch.requests))]),
                                   self.vae)
        mask_BCTHW = torch.zeros_like(latents_BCTHW[:, :1]).repeat(1, TEMPORAL_SCALE, 1, 1, 1)
        mask_BCTHW[:, :, 0] = 1.0  # the first frame is a latent frame of its own
        mask_BCTHW[:, -1, -1] = 1.0
        return torch.cat([mask_BCTHW, latents_BCTHW], dim=1)

    def _encoded(self, batch: Batch, index: int) -> torch.Tensor:
        request = batch.requests[index]
        assert request.image is not None
        assert request.last_image is not None
        first, last = self.frame(request.image, batch), self.frame(request.last_image, batch)
        between = first.new_zeros(()).expand(1, 3, request.num_frames - 2, *first.shape[3:])
        return encode_clip(self.vae, torch.cat([first, between, last], dim=2))
