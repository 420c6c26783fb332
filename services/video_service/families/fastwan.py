"""FastWan2.1, text-to-video: a Wan taught video sparse attention (VSA), and to denoise in three steps without guidance.

Source: https://github.com/hao-ai-lab/FastVideo; rendered as published (FastVideo/FastWan2.1-T2V-1.3B-Diffusers), with
its pipeline's sampler (`DmdDenoisingStage`) and the sparsity of its examples. The state stays in float32 between steps,
where theirs is bfloat16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from contracts.models import FloatRange, FrameRange, IntRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver
from video_service.families.wan.files import (
    DMD_PIPELINE,
    WAN_CONFIGS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    has_wan_parts,
    load_wan,
    wan_spec,
)
from video_service.families.wan.model import WanConditioning, WanModel
from video_service.layers.attention.vsa import Vsa
from video_service.layers.wan.codec import TEMPORAL_SCALE
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS, shift_sigma
from video_service.render.solvers import Noise, NoisySolver
from video_service.weights.checkpoint import CheckpointFiles

_TOPK = 1 - 0.8
_SHIFT = 8.0
_TIMESTEPS = (1000, 757, 522)


class GatedTransformer(WanTransformer3DModel):
    """diffusers' transformer with VSA's gate in each block, as the checkpoint names it. Only our own form uses it."""

    @wraps(WanTransformer3DModel.__init__)
    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        for block in self.blocks:
            block.to_gate_compress = nn.Linear(width, width)


class FastWan21:
    """The family. No engines: the choice of tiles depends on the data."""

    name = "fastwan2.1"
    render_graphs: Sequence[str] = ()
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        is_dmd = has_wan_parts(files) and files.read_json("model_index.json")["_class_name"] == DMD_PIPELINE
        return is_dmd and not has_experts(files) and not has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        return wan_spec(
            files, self.name, tasks=["t2v"], samplers=["dmd"], sampler_steps={}, unguided_samplers=["dmd"],
            sizes=["832x448", "448x832", "832x480", "480x832"],
            num_frames=FrameRange(minimum=1, maximum=161, default=61, step=TEMPORAL_SCALE),
            steps=IntRange(minimum=1, maximum=len(_TIMESTEPS), default=len(_TIMESTEPS)),
            guidance_scale=FloatRange(minimum=1.0, maximum=1.0, default=1.0),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "FastWanModel":
        parts = {**WAN_PARTS, "transformer": GatedTransformer}
        sparse = {"transformer": Vsa(topk=placement.layers.topk or _TOPK)}
        return FastWanModel(**load_wan(self.spec(files), files, placement, parts, sparse=sparse))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "FastWanModel", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class FastWanModel(WanModel):
    """Its solver alone is another."""

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        noise = Noise(batch.seeds, self.latent_shape(batch), self.placement.device)
        return DmdSolver(noise, given.sampling.steps)


class DmdSolver(NoisySolver):
    """Distribution matching's sampler: all the way to clean latents, and back to the next step's noise level."""

    def __init__(self, noise: Noise, steps: int) -> None:
        super().__init__(noise)
        self.timesteps = [float(timestep) for timestep in _TIMESTEPS[:steps]]
        self._sigmas = [dmd_sigma(timestep) for timestep in self.timesteps]

    def start(self) -> torch.Tensor:
        return self._noise.draw()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        clean = (state.double() - self._sigmas[index] * prediction.double()).float()
        if index + 1 == len(self._sigmas):
            return clean
        after = self._sigmas[index + 1]
        return (1 - after) * clean + after * self._noise.draw()


def dmd_sigma(timestep: float) -> float:
    """The noise level that training knew nearest to the timestep."""
    levels = (shift_sigma(index / NUM_TRAIN_TIMESTEPS, _SHIFT) for index in range(1, NUM_TRAIN_TIMESTEPS + 1))
    return min(levels, key=lambda sigma: abs(NUM_TRAIN_TIMESTEPS * sigma - timestep))
