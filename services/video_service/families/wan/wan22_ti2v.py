"""Wan2.2 TI2V-5B: words, or an image that is the clip's first latent frame and is kept as it is.

Source: https://github.com/Wan-Video/Wan2.2; numbers agree with `WanPipeline` and `WanImageToVideoPipeline`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from contracts.models import FrameRange, IntRange, ModelSpec
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver
from video_service.families.wan.files import (
    WAN_CONFIGS,
    WAN_GRAPHS,
    WAN_PARTS,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.families.wan.model import WanConditioning, WanModel, guided
from video_service.layers.wan.codec import TEMPORAL_SCALE, latent_frames, normalised
from video_service.layers.wan.graphs import wan_ti2v_graphs
from video_service.weights.checkpoint import CheckpointFiles

_SHIFT = 5.0  # the authors' own


class Wan22TI2V:
    """The family."""

    name = "wan2.2-ti2v"
    render_graphs = WAN_GRAPHS
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return is_wan(files) and has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        return wan_spec(
            files, self.name, profile="wan2.2", tasks=["t2v", "i2v"], sizes=["1280x704", "704x1280"],
            max_pixels=1280 * 704, num_frames=FrameRange(minimum=1, maximum=161, default=121, step=TEMPORAL_SCALE),
            fps=IntRange(minimum=1, maximum=60, default=24),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "FrameTimesModel":
        return FrameTimesModel(**load_wan(self.spec(files), files, placement, WAN_PARTS, shift=_SHIFT))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {"transformer": spec.steps.default, "vae_decoder_later": latent_frames(shape.num_frames) - 1}

    def graphs(self, model: "FrameTimesModel", shape: ClipShape) -> list[Graph]:
        return wan_ti2v_graphs(model.modules(), shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimesModel(WanModel):
    """Each latent frame has a time of its own: an image's is 0."""

    times_by_token: bool = True
    """diffusers' network takes a time for each token, an engine one for each latent frame."""

    def predict(self, state: torch.Tensor, timestep: float, given: WanConditioning) -> torch.Tensor:
        x, first = state.float(), given.beside_BCTHW
        times_BT = torch.full((len(x), x.shape[2]), timestep, dtype=torch.float32, device=x.device)
        if first is not None:
            x = torch.cat([first, x[:, :, 1:]], dim=2)
            times_BT[:, 0] = 0.0
        if self.times_by_token:
            patch = self.transformer.config["patch_size"]
            times_BT = times_BT.repeat_interleave(x.shape[3] // patch[1] * (x.shape[4] // patch[2]), dim=1)
        return guided(self.transformer, x.to(self.placement.dtype), times_BT, given, given.sampling.guidance_scale)

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        solver = WanModel.solver(self, batch, given)
        return solver if given.beside_BCTHW is None else HeldFrame(solver, given.beside_BCTHW)

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        return replace(super(FrameTimesModel, self).on_engines(sessions, dtype), times_by_token=False)

    def condition(self, batch: Batch) -> torch.Tensor | None:
        """The image's latents [B, z, 1, h, w], or None without one."""
        if batch.first.image is None:
            return None
        return normalised(torch.cat([self.codec.encode_still(image, 1) for image in self.images(batch)]), self.vae)


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A solver whose first latent frame stays what it is."""

    solver: Any
    first_BCTHW: torch.Tensor

    @property
    def timesteps(self) -> list[float]:
        return self.solver.timesteps

    def start(self) -> torch.Tensor:
        return self.solver.start()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        after = self.solver.step(index, prediction, state)
        return torch.cat([self.first_BCTHW.to(after.dtype), after[:, :, 1:]], dim=2)

    def keep(self, places: Sequence[int]) -> "HeldFrame":
        return HeldFrame(self.solver.keep(places), self.first_BCTHW[list(places)])
