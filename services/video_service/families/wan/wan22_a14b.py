"""Wan2.2 A14B, text-to-video and image-to-video: one expert for high noise, one for low.

Source: https://github.com/Wan-Video/Wan2.2; numbers agree with `WanPipeline` and `WanImageToVideoPipeline`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from contracts.models import FloatRange, IntRange, ModelSpec
from contracts.resolve import Sampling
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver, Stages
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
from video_service.families.wan.model import WanConditioning, WanModel, is_guided, plain
from video_service.layers.wan.codec import latent_frames
from video_service.layers.wan.engines import EngineTransformer
from video_service.layers.wan.graphs import wan_graphs
from video_service.render.progress import StageClock, silent
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS
from video_service.weights.checkpoint import CheckpointFiles
from video_service.weights.host import Slot, Turn, pinned

EXPERT_PARTS = {**WAN_PARTS, "transformer_2": WanTransformer3DModel}
# The converted repositories say shift 3; these are the authors' own values, as are the scales (high noise, low noise).
_SHIFT = {"t2v": 12.0, "i2v": 5.0}
_GUIDANCE = {"t2v": (4.0, 3.0), "i2v": (3.5, 3.5)}
_BOUNDARY = {"t2v": 0.875, "i2v": 0.9}


class Wan22A14B:
    """The family."""

    name = "wan2.2-a14b"
    render_graphs = (*WAN_GRAPHS, "transformer_2")
    take_turns = ("transformer", "transformer_2")

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
        if placement.turns and placement.weights:
            fields |= in_turns(fields, placement)
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
    turns: "ExpertTurns | None" = None
    """Set where the two take turns in memory."""

    def encode(self, batch: Batch, stages: Stages) -> WanConditioning:
        if self.turns is not None:
            self.turns.stages = stages
            self.turns.slot.waited_s()  # of a render that did not come to its end
        return WanModel.encode(self, batch, stages)

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        solver = WanModel.solver(self, batch, given)
        if self.turns is not None:
            self.turns.timesteps = list(solver.timesteps)
        return solver

    def predict(self, state: torch.Tensor, timestep: float, given: WanConditioning) -> torch.Tensor:
        network, scale = self._expert(timestep, given.sampling)
        if self.turns is not None:
            following, _ = self._expert(self.turns.after(timestep), given.sampling)
            self.turns.slot.expect(2 if is_guided(given, scale) else 1, following.module)
        return self.velocity(network, state, timestep, given, scale)

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        if self.turns is not None:
            self.turns.stages.waited("expert_switch", self.turns.slot.waited_s())
        yield from WanModel.decode(self, latents)

    def _expert(self, timestep: float, sampling: Sampling) -> tuple[Any, float]:
        """Who denoises at this timestep, and with which guidance."""
        if timestep >= self.boundary:
            return self.transformer, sampling.guidance_scale
        return self.transformer_2, sampling.guidance_scale_2 or sampling.guidance_scale

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        second = EngineTransformer(sessions["transformer_2"], self.transformer_2.config)
        return replace(super(ExpertsModel, self).on_engines(sessions, dtype), transformer_2=second, turns=None)

    def modules(self) -> dict[str, Any]:
        return WanModel.modules(self) | {"transformer_2": plain(self.transformer_2)}


@dataclass(slots=True, kw_only=True)
class ExpertTurns:
    """The memory of one expert, and the render that goes on in it."""

    slot: Slot
    timesteps: list[float] = field(default_factory=list)
    stages: Stages = field(default_factory=lambda: StageClock(silent))

    def after(self, timestep: float) -> float:
        """The next timestep; of the last one the first, with which the next render begins."""
        return self.timesteps[(self.timesteps.index(timestep) + 1) % len(self.timesteps)]


def in_turns(parts: Mapping[str, Any], placement: Placement) -> dict[str, Any]:
    """Both experts, which lie on the host, over the memory of one; `turns` knows whose it is."""
    hosts = {name: pinned(parts[name])[0] for name in ("transformer", "transformer_2")}
    slot = Slot(hosts["transformer"], lambda network: list(cast(Any, network).blocks), placement.device)
    return {name: Turn(slot, host) for name, host in hosts.items()} | {"turns": ExpertTurns(slot=slot)}


def boundary_of(files: CheckpointFiles) -> float:
    """The timestep, 0 to 1000, at and above which the expert for high noise denoises."""
    ratio = files.read_json("model_index.json").get("boundary_ratio") or _BOUNDARY[_task(files)]
    return ratio * NUM_TRAIN_TIMESTEPS


def _task(files: CheckpointFiles) -> str:
    transformer = files.read_json("transformer/config.json")
    return "t2v" if transformer.get("in_channels", 16) == transformer.get("out_channels", 16) else "i2v"
