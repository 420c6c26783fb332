"""Wan2.2 A14B, text-to-video and image-to-video: one expert for high noise, one for low.

Source: https://github.com/Wan-Video/Wan2.2; numbers agree with `WanPipeline` and `WanImageToVideoPipeline`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from contracts.models import FloatRange, IntRange, ModelSpec
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.families.base import Placement
from video_service.families.wan import WanConditioning, WanModel, plain
from video_service.families.wan_files import (
    WAN_CONFIGS,
    WAN_GRAPHS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.layers.wan.codec import latent_frames
from video_service.layers.wan.engines import EngineTransformer
from video_service.layers.wan.graphs import wan_graphs
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS
from video_service.weights.checkpoint import CheckpointFiles

EXPERT_PARTS = {**WAN_PARTS, "transformer_2": WanTransformer3DModel}
# The converted repositories say shift 3; these are the authors' own values, as are the scales (high noise, low noise).
_SHIFT = {"t2v": 12.0, "i2v": 5.0}
_GUIDANCE = {"t2v": (4.0, 3.0), "i2v": (3.5, 3.5)}
_BOUNDARY = {"t2v": 0.875, "i2v": 0.9}


class Wan22A14B:
    """The family."""

    name = "wan2.2-a14b"
    render_graphs = (*WAN_GRAPHS, "transformer_2")

    def claims(self, files: CheckpointFiles) -> bool:
        return is_wan(files) and has_experts(files) and not has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require((*WAN_CONFIGS, "transformer_2/config.json"), EXPERT_PARTS)
        task = _task(files)
        scales = [FloatRange(minimum=1.0, maximum=20.0, default=default) for default in _GUIDANCE[task]]
        return wan_spec(
            files, self.name, profile="wan2.2", steps=IntRange(minimum=1, maximum=100, default=40),
            guidance_scale=scales[0], guidance_scale_2=scales[1],
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "ExpertsModel":
        task = _task(files)
        fields = load_wan(self.spec(files), files, placement, EXPERT_PARTS, shift=_SHIFT[task])
        return ExpertsModel(**fields, boundary=boundary_of(files))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        half = max(1, spec.steps.default // 2)  # about: the share of each depends on shift and boundary
        return {"transformer": half, "transformer_2": half, "vae_decoder_later": latent_frames(shape.num_frames) - 1}

    def graphs(self, model: "ExpertsModel", shape: ClipShape) -> list[Graph]:
        return wan_graphs(model.modules(), shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsModel(WanModel):
    """`transformer` denoises at `boundary` and above, `transformer_2` below."""

    transformer_2: Any
    boundary: float
    """A timestep, 0 to 1000."""

    def predict(self, state: torch.Tensor, timestep: float, given: WanConditioning) -> torch.Tensor:
        sampling = given.sampling
        if timestep >= self.boundary:
            return self.velocity(self.transformer, state, timestep, given, sampling.guidance_scale)
        scale = sampling.guidance_scale if sampling.guidance_scale_2 is None else sampling.guidance_scale_2
        return self.velocity(self.transformer_2, state, timestep, given, scale)

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        second = EngineTransformer(sessions["transformer_2"], self.transformer_2.config)
        return replace(super(ExpertsModel, self).on_engines(sessions, dtype), transformer_2=second)

    def modules(self) -> dict[str, Any]:
        return WanModel.modules(self) | {"transformer_2": plain(self.transformer_2)}


def boundary_of(files: CheckpointFiles) -> float:
    """The timestep, 0 to 1000, at and above which the expert for high noise denoises."""
    ratio = files.read_json("model_index.json").get("boundary_ratio") or _BOUNDARY[_task(files)]
    return ratio * NUM_TRAIN_TIMESTEPS


def _task(files: CheckpointFiles) -> str:
    transformer = files.read_json("transformer/config.json")
    return "t2v" if transformer.get("in_channels", 16) == transformer.get("out_channels", 16) else "i2v"
