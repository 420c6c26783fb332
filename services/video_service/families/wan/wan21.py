"""Wan2.1 in diffusers' layout: text-to-video, image-to-video with and without CLIP, and our embedded checkpoint.

Source: https://github.com/Wan-Video/Wan2.1; numbers agree with `WanPipeline` and `WanImageToVideoPipeline`.
"""

from collections.abc import Mapping, Sequence

from contracts.models import ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Placement
from video_service.families.wan.files import (
    WAN_CONFIGS,
    WAN_GRAPHS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.families.wan.model import WanModel
from video_service.layers.wan.codec import latent_frames
from video_service.layers.wan.graphs import wan_graphs
from video_service.weights.checkpoint import CheckpointFiles


class Wan21:
    """The family."""

    name = "wan2.1"
    render_graphs = WAN_GRAPHS
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return is_wan(files) and not has_experts(files) and not has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        return wan_spec(files, self.name)

    def load(self, files: CheckpointFiles, placement: Placement) -> "WanModel":
        return WanModel(**load_wan(self.spec(files), files, placement, WAN_PARTS))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {"transformer": spec.steps.default, "vae_decoder_later": latent_frames(shape.num_frames) - 1}

    def graphs(self, model: "WanModel", shape: ClipShape) -> list[Graph]:
        return wan_graphs(model.modules(), shape)
