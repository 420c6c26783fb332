"""A family of another shape than Wan's, as a whole in one file: any number of frames, an image decoder that knows no
time, a solver of its own, sizes in multiples of 24. `python -m tests.checkpoints.toy_family` is a worker that knows
it too.

Its video is the prompt's length as a brightness, its noise halved at every step.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file

from contracts.models import FloatRange, FrameRange, IntRange, ModelSpec
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.families import registry
from video_service.families.base import Batch, Placement, Solver, Stages
from video_service.render.solvers import Noise
from video_service.weights.checkpoint import CheckpointFiles
from video_service.weights.lora import Lora
from video_service.worker.program import open_models, worker_program
from web.worker.child import run

SIDE = 24  # pixels a latent


class Toy:
    """The family."""

    name = "toy"
    render_graphs = ()
    take_turns = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return files.find_json("model_index.json").get("_class_name") == "ToyPipeline"

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        return ModelSpec(
            id=files.name, family=self.name, profile="embedded", tasks=["t2v"], sizes=["96x72"], size_multiple=SIDE,
            min_side=SIDE, max_pixels=240 * 240, num_frames=FrameRange(minimum=2, maximum=30, default=7),
            fps=IntRange(minimum=1, maximum=60, default=8), steps=IntRange(minimum=1, maximum=9, default=3),
            guidance_scale=FloatRange(minimum=1.0, maximum=1.0, default=1.0), samplers=["halving"],
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "ToyModel":
        return ToyModel(spec=self.spec(files), gain=load_file(files.path / "toy.safetensors")["gain"])

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "ToyModel", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(frozen=True, slots=True)
class Given:
    """What steers a batch."""

    brightness_B: torch.Tensor
    warnings: tuple[tuple[str, ...], ...]

    def keep(self, places: Sequence[int]) -> "Given":
        return Given(self.brightness_B[list(places)], tuple(self.warnings[place] for place in places))


@dataclass(frozen=True, slots=True)
class Halving:
    """Goes half of the way at each step, the whole of it at the last."""

    noise: Noise
    timesteps: list[float]

    def start(self) -> torch.Tensor:
        return self.noise.draw()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return prediction if index + 1 == len(self.timesteps) else (state + prediction) / 2

    def keep(self, places: Sequence[int]) -> Self:
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyModel:
    """A loaded model."""

    spec: ModelSpec
    gain: torch.Tensor
    form: str | None = None

    def encode(self, batch: Batch, stages: Stages) -> Given:
        with stages("text"):
            lengths = torch.tensor([float(len(request.prompt)) for request in batch.requests])
        return Given(lengths, tuple(() for _ in batch.requests))

    def solver(self, batch: Batch, given: Given) -> Solver:
        first = batch.first
        shape = (1, first.num_frames, first.height // SIDE, first.width // SIDE)
        steps = first.sampling.steps
        return Halving(Noise(batch.seeds, shape, torch.device("cpu")), [1000.0 / (n + 1) for n in range(steps)])

    def predict(self, state: torch.Tensor, timestep: float, given: Given) -> torch.Tensor:
        return (given.brightness_B * self.gain).view(-1, 1, 1, 1, 1).expand_as(state)

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        for frame_BCHW in latents.unbind(2):
            pixels = frame_BCHW.repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3).expand(-1, 3, -1, -1)
            yield pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)[:, None]

    def adapted(self, loras: Sequence[Lora]) -> Self:
        raise NotImplementedError("no LoRA changes it")

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        raise NotImplementedError("no graph of this family renders")


def save_toy(folder: Path, gain: float) -> Path:
    """Write a checkpoint into `folder` and return it."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
    save_file({"gain": torch.tensor(gain)}, folder / "toy.safetensors")
    return folder


def worker() -> Any:
    registry.FAMILIES.append(Toy())  # the one line
    return worker_program(open_models)


if __name__ == "__main__":
    sys.exit(run(worker()))
