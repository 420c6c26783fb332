"""AnyFlow on Wan2.1, text-to-video: a flow map, which is told where a step begins and where it ends, so any few do.

Source: https://huggingface.co/papers/2605.13724; numbers agree with diffusers' `AnyFlowPipeline`. Its causal sibling,
AnyFlow-FAR, is another network and is not claimed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.transformers.transformer_anyflow import AnyFlowTransformer3DModel

from contracts.models import FloatRange, IntRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver
from video_service.families.wan.files import WAN_CONFIGS, WAN_PARTS, load_wan, wan_spec
from video_service.families.wan.model import WanConditioning, WanModel
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS, shift_sigma
from video_service.render.solvers import Noise, NoisySolver
from video_service.weights.checkpoint import CheckpointFiles

_PARTS = {**WAN_PARTS, "transformer": AnyFlowTransformer3DModel}


class AnyFlow:
    """The family."""

    name = "anyflow"
    render_graphs: Sequence[str] = ()
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return files.find_json("model_index.json").get("_class_name") == "AnyFlowPipeline"

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, _PARTS)
        return wan_spec(
            files, self.name, tasks=["t2v"], samplers=["flowmap"], sampler_steps={}, unguided_samplers=["flowmap"],
            steps=IntRange(minimum=1, maximum=50, default=4),
            guidance_scale=FloatRange(minimum=1.0, maximum=1.0, default=1.0),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "FlowMapModel":
        return FlowMapModel(**load_wan(self.spec(files), files, placement, _PARTS))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "FlowMapModel", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMapModel(WanModel):
    """Predicts the mean velocity from a timestep to the next."""

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        noise = Noise(batch.seeds, self.latent_shape(batch), self.placement.device)
        return FlowMapSolver(noise, flow_map_sigmas(given.sampling.steps, self.flow_shift))

    def predict(self, state: torch.Tensor, timestep: float, given: WanConditioning) -> torch.Tensor:
        ends = {NUM_TRAIN_TIMESTEPS * begin: NUM_TRAIN_TIMESTEPS * end
                for begin, end in pairwise(flow_map_sigmas(given.sampling.steps, self.flow_shift))}
        x_BTCHW = state.float().transpose(1, 2).to(self.placement.dtype)
        # float64, as the pipeline's scheduler tells them
        begin_BT, end_BT = (torch.full(x_BTCHW.shape[:2], time, dtype=torch.float64, device=x_BTCHW.device)
                            for time in (timestep, ends[timestep]))
        velocity_BTCHW: Any = self.transformer(x_BTCHW, begin_BT, end_BT, given.text_BLC, return_dict=False)[0]
        return velocity_BTCHW.float().transpose(1, 2)


def flow_map_sigmas(steps: int, shift: float) -> list[float]:
    """The `steps + 1` noise levels, from 1 to 0: even ones, shifted."""
    return [shift_sigma(1 - index / steps, shift) for index in range(steps + 1)]


class FlowMapSolver(NoisySolver):
    """Along the mean velocity from one noise level to the next."""

    def __init__(self, noise: Noise, sigmas: Sequence[float]) -> None:
        super().__init__(noise)
        self._sigmas = sigmas
        self.timesteps = [NUM_TRAIN_TIMESTEPS * sigma for sigma in sigmas[:-1]]

    def start(self) -> torch.Tensor:
        return self._noise.draw()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return state - (self._sigmas[index] - self._sigmas[index + 1]) * prediction
