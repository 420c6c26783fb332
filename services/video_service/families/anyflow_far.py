"""AnyFlow-FAR on Wan2.1: a flow map that denoises a clip in chunks of a few latent frames, each after those before it.

Source: https://huggingface.co/papers/2605.13724; numbers agree with diffusers' `AnyFlowFARPipeline`. A picture is the
first chunk. What is done is remembered as attention's keys and values: the last chunks at full size, those before them
in coarser patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_anyflow_far import AnyFlowFARTransformer3DModel, apply_rotary_emb

from contracts.models import FloatRange, FrameRange, IntRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.anyflow import FlowMapModel, FlowMapSolver, flow_map_sigmas
from video_service.families.base import Batch, Placement, Solver, Stages
from video_service.families.wan.files import WAN_CONFIGS, WAN_PARTS, load_wan, wan_spec
from video_service.families.wan.model import WanConditioning, WanModel
from video_service.layers.wan.codec import TEMPORAL_SCALE, latent_frames, normalised
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS
from video_service.render.solvers import Noise
from video_service.weights.checkpoint import CheckpointFiles

_PARTS = {**WAN_PARTS, "transformer": AnyFlowFARTransformer3DModel}
_CHUNKS = (1, 3, 3, 3, 3, 3, 3, 2)
_COARSE = (1, 4, 4)
_KEY_BLOCK = 128


class AnyFlowFar:
    """The family."""

    name = "anyflow-far"
    render_graphs: Sequence[str] = ()
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return files.find_json("model_index.json").get("_class_name") == "AnyFlowFARPipeline"

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, _PARTS)
        network, vae = files.read_json("transformer/config.json"), files.read_json("vae/config.json")
        chunks = network.get("chunk_partition", _CHUNKS)
        most = TEMPORAL_SCALE * (sum(chunks) - 1) + 1
        return wan_spec(
            files, self.name, tasks=["t2v", "i2v"] if chunks[0] == 1 else ["t2v"], samplers=["flowmap"],
            sampler_steps={}, unguided_samplers=["flowmap"], batches=False, sizes=["832x480", "480x832"],
            size_multiple=vae.get("scale_factor_spatial", 8) * network.get("compressed_patch_size", _COARSE)[1],
            num_frames=FrameRange(minimum=1, maximum=most, default=most, step=TEMPORAL_SCALE),
            steps=IntRange(minimum=1, maximum=50, default=4),
            guidance_scale=FloatRange(minimum=1.0, maximum=1.0, default=1.0),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "FarModel":
        parts = load_wan(self.spec(files), files, placement, _PARTS)
        for block in parts["transformer"].blocks:
            block.attn1.processor = RememberingAttention()
        return FarModel(**parts)

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "FarModel", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(slots=True, kw_only=True)
class Rollout:
    """How far a clip is: the steps of each chunk in turn, and what attention remembers of the chunks before."""

    chunks: Sequence[int]
    """Latent frames of each."""
    given: int
    """How many of the first are not denoised: a picture's."""
    steps: int
    done: int = 0
    """Steps."""
    remembered: int = 0
    """Chunks."""
    memory: dict[int, dict[str, Any]]
    """By the block's number."""

    def next_chunk(self) -> int:
        """The one that the next step denoises."""
        chunk = self.given + self.done // self.steps
        self.done += 1
        return chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class FarConditioning(WanConditioning):
    """Wan's, where `beside_BCTHW` is a picture's latents, and where the render is."""

    rollout: Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class FarModel(FlowMapModel):
    """Predicts the mean velocity of one chunk, and none of the others."""

    def encode(self, batch: Batch, stages: Stages) -> FarConditioning:
        given = WanModel.encode(self, batch, stages)
        rollout = Rollout(
            chunks=_cut(self.transformer.config["chunk_partition"], latent_frames(batch.first.num_frames)),
            given=int(given.beside_BCTHW is not None), steps=given.sampling.steps,
            memory={index: {} for index in range(len(self.transformer.blocks))})
        return FarConditioning(**{own.name: getattr(given, own.name) for own in fields(given)}, rollout=rollout)

    def condition(self, batch: Batch) -> torch.Tensor | None:
        """The picture's latents [1, z, 1, h, w], or None without one."""
        if batch.first.image is None:
            return None
        return normalised(torch.cat([self.codec.encode_still(image, 1) for image in self.images(batch)]), self.vae)

    def solver(self, batch: Batch, given: Any) -> Solver:
        noise = Noise(batch.seeds, self.latent_shape(batch), self.placement.device)
        sigmas = flow_map_sigmas(given.sampling.steps, self.flow_shift)
        return FarSolver(noise, sigmas, len(given.rollout.chunks) - given.rollout.given, given.beside_BCTHW)

    def predict(self, state: torch.Tensor, timestep: float, given: Any) -> torch.Tensor:
        rollout, steps = given.rollout, given.sampling.steps
        chunk = rollout.next_chunk()
        if rollout.remembered < chunk:
            self._remember(state, chunk, given)
        sigmas = flow_map_sigmas(steps, self.flow_shift)
        after = NUM_TRAIN_TIMESTEPS * sigmas[(rollout.done - 1) % steps + 1]
        ends = list(accumulate(rollout.chunks))
        begin, end = ends[chunk] - rollout.chunks[chunk], ends[chunk]
        x_BTCHW = state[:, :, begin:end].transpose(1, 2).to(self.placement.dtype)
        found = self._run(x_BTCHW, chunk + 1, (timestep, after), given, {"num_cached_chunks": chunk})
        velocity = torch.zeros_like(state, dtype=torch.float32)
        velocity[:, :, begin:end] = found.float().transpose(1, 2)
        return velocity

    def _remember(self, state: torch.Tensor, chunks: int, given: FarConditioning) -> None:
        """Have attention know the first `chunks`, all of them anew: which are coarse changes with their number."""
        rollout, config = given.rollout, self.transformer.config
        sizes = rollout.chunks[:chunks]
        x_BTCHW = state[:, :, :sum(sizes)].transpose(1, 2).to(self.placement.dtype)
        fine = min(chunks, config["full_chunk_limit"] - 1)
        frame_tokens = [_tokens(x_BTCHW, config[patch]) for patch in ("compressed_patch_size", "patch_size")]
        of_token = torch.cat([
            torch.full((size * frame_tokens[place >= chunks - fine],), place) for place, size in enumerate(sizes)])
        seen = (of_token[:, None] >= of_token).to(x_BTCHW.device)
        self._run(x_BTCHW, chunks, (0.0, 0.0), given, {"num_cached_chunks": rollout.remembered, "is_cache_step": True},
                  attention_mask=seen)
        rollout.remembered = chunks

    def _run(
        self, x_BTCHW: torch.Tensor, chunks: int, times: tuple[float, float], given: FarConditioning,
        flag: dict[str, Any], **more: Any,
    ) -> Any:
        """The network on the last of so many chunks, or on all of them; what it says, [B, T, C, H, W]."""
        begin_BT, end_BT = (
            torch.full(x_BTCHW.shape[:2], time, dtype=torch.float64, device=x_BTCHW.device) for time in times)
        return self.transformer(
            x_BTCHW, begin_BT, end_BT, given.text_BLC, chunk_partition=list(given.rollout.chunks[:chunks]),
            kv_cache=given.rollout.memory, kv_cache_flag=flag, return_dict=False, **more)[0]


class FarSolver(FlowMapSolver):
    """The flow map's steps once for each chunk that is not given."""

    def __init__(
        self, noise: Noise, sigmas: Sequence[float], chunks: int, first_BCTHW: torch.Tensor | None
    ) -> None:
        super().__init__(noise, sigmas)
        self._steps, self._first = len(self.timesteps), first_BCTHW
        self.timesteps = self.timesteps * chunks

    def start(self) -> torch.Tensor:
        drawn = self._noise.draw()
        return drawn if self._first is None else torch.cat([self._first.to(drawn), drawn[:, :, 1:]], dim=2)

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return super().step(index % self._steps, prediction, state)


class RememberingAttention:
    """diffusers' `AnyFlowCausalAttnProcessor` without flex_attention, which is slow where it is not compiled."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, *, rotary_emb: Mapping[str, torch.Tensor],
        attention_mask: torch.Tensor | None, kv_cache: dict[str, torch.Tensor], kv_cache_flag: Mapping[str, Any],
    ) -> torch.Tensor:
        heads = (attn.heads, -1)
        query, key, value = (
            x.to(hidden_states.dtype).unflatten(2, heads).transpose(1, 2) for x in (
                attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states)),
                attn.to_v(hidden_states)))
        if attention_mask is not None:
            kv_cache |= {"key": key, "value": value}
        elif kv_cache:
            key, value = (torch.cat([kv_cache[name], x], dim=2) for name, x in (("key", key), ("value", value)))
        query, key = apply_rotary_emb(query, rotary_emb["query"]), apply_rotary_emb(key, rotary_emb["key"])
        if attention_mask is None:
            # What rounds the queries up there is added to the keys too, and nothing hides it: its logits are 0.
            more = (0, 0, 0, -query.shape[2] % _KEY_BLOCK)
            key, value = F.pad(key, more), F.pad(value, more)
        out = F.scaled_dot_product_attention(query, key, value, attention_mask)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _cut(chunks: Sequence[int], frames: int) -> list[int]:
    """The first of the chunks, as many as there are frames."""
    ends = accumulate(chunks)
    found = [min(size, frames - (end - size)) for size, end in zip(chunks, ends, strict=True)]
    return [size for size in found if size > 0]


def _tokens(x_BTCHW: torch.Tensor, patch: Sequence[int]) -> int:
    """Of one latent frame."""
    return x_BTCHW.shape[3] // patch[1] * (x_BTCHW.shape[4] // patch[2])
