"""What a family of models is to the service: it finds its checkpoints, and loads what renders.

`Family` and `VideoModel` are all that the rest of the service knows. A new family is one file here that implements
both, and one line in `registry.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from PIL import Image

from contracts.models import ModelSpec
from contracts.resolve import Sampling
from contracts.videos import RenderStage
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.weights.checkpoint import CheckpointFiles
from video_service.weights.lora import Lora


class Peers(Protocol):
    """Further devices that compute with this one."""

    @property
    def size(self) -> int:
        """All of them, this one too."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether they decode too."""
        ...

    def split(self, module: Any, *, fp8: bool = False, sparse: Any = None) -> Any:
        """A Wan transformer as a `FastTransformer` whose tokens are split over all. Raises `ModelUnavailable`."""
        ...

    def codec(self, vae: Any) -> Any:
        """A Wan VAE on CUDA as a `FastCodec` whose decoder is split over all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a model computes, and in what."""

    device: torch.device
    dtype: torch.dtype
    """Of the big matrices and of what goes into them."""
    layers: "Layers" = field(default_factory=lambda: Layers())
    rcm_noise_on_device: bool = False
    """Have the rCM samplers draw on the device, as TurboDiffusion does, and not on the CPU."""
    turns: bool = False
    """Have networks that never run at once take turns in the memory of one: families that `take_turns` alone."""
    peers: Peers | None = None
    """Who computes a step with this device, where the network can be split."""
    weights: bool = True
    """False where engines hold all weights: the modules then say what their configs say and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which of its own forms a family may give the modules where they fit; approximations only where asked for."""

    fast: bool = True
    """Forms with the plain ones' numbers up to rounding, on a CUDA device in bfloat16."""
    fp8: bool = False
    """Linear layers in float8 by rows."""
    int8: bool = False
    """Linear layers kept in the int8 blocks that they were published in: their numbers, in half the memory."""
    topk: float | None = None
    """Sparse attention to this share of the key blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """One clip, complete: nothing in it is left to a default."""

    prompt: str
    negative_prompt: str
    image: Image.Image | None
    """The first frame, upright RGB of exactly the clip's size."""
    width: int
    height: int
    num_frames: int
    fps: int
    seed: int
    sampling: Sampling
    last_image: Image.Image | None = None
    """The last frame, of the same size; goes with `image`."""

    @property
    def form(self) -> tuple[Any, ...]:
        """What clips of one batch have in common."""
        return (
            self.width, self.height, self.num_frames, self.fps, self.sampling, self.image is None,
            self.last_image is None,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips that are rendered as one: of one size, length and sampling, all with an image or none."""

    requests: tuple[RenderRequest, ...]

    def __post_init__(self) -> None:
        first, *others = self.requests
        if any(other.form != first.form for other in others):
            raise ValueError("clips of one batch differ in more than words, images and seed")

    @property
    def first(self) -> RenderRequest:
        """What is equal in all of them may be read from this one."""
        return self.requests[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(request.seed for request in self.requests)


class Stages(Protocol):
    """Told which stage of a render runs: `with stages("text"): ...`; it may raise `RenderCanceled`."""

    def __call__(self, stage: RenderStage, total: int = 1) -> AbstractContextManager[None]: ...

    def waited(self, reason: str, seconds: float) -> None:
        """Within the stages so much was lost; it is added up by reason."""
        ...


class Conditioning(Protocol):
    """What steers the denoising of a batch; opaque but to the model that made it."""

    @property
    def warnings(self) -> Sequence[Sequence[str]]:
        """For each request, what was not done as asked, a sentence each."""
        ...

    def keep(self, places: Sequence[int]) -> Self:
        """Of the clips at these places of the batch alone."""
        ...


class Solver(Protocol):
    """One sampler at work on one batch."""

    @property
    def timesteps(self) -> Sequence[float]:
        """What the network is told at each step, 0 to 1000."""
        ...

    def start(self) -> torch.Tensor:
        """The state before the first step, drawn from the batch's seeds."""
        ...

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """The state after step `index`, from the float32 prediction at the state before it."""
        ...

    def keep(self, places: Sequence[int]) -> Self:
        """For the clips at these places of the batch alone; this one is not used any more."""
        ...


class VideoModel(Protocol):
    """A loaded model. Tensors are on its device; B counts the batch's clips."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def form(self) -> str | None:
        """How the modules compute, for people, where that is not the plain way."""
        ...

    def encode(self, batch: Batch, stages: Stages) -> Conditioning:
        """Words and images to what the network takes, in the stages `text` and `condition`."""
        ...

    def solver(self, batch: Batch, given: Any) -> Solver: ...

    def predict(self, state: torch.Tensor, timestep: float, given: Any) -> torch.Tensor:
        """The network's float32 prediction; guidance and the choice among experts are in here."""
        ...

    def glimpse(self, state: torch.Tensor, timestep: float, prediction: torch.Tensor) -> torch.Tensor | None:
        """About what the clips' middles will be: uint8 [B, h, w, 3], a pixel for a latent, of a step's state and the
        prediction at it. Far cheaper than the step; None where the model has no such way."""
        ...

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """The last state to frames in order, uint8 [B, T, H, W, 3], chunk by chunk."""
        ...

    def adapted(self, loras: Sequence[Lora]) -> Self:
        """The same model with LoRAs in it, beside this one, which stays as it is: what they do not change is shared.

        Raises `LoraUnusable` for the first that does not fit.
        """
        ...

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        """The same model with engines in the place of its modules, one for each of the family's `render_graphs`."""
        ...


class Family(Protocol):
    """One kind of model."""

    @property
    def name(self) -> str: ...

    @property
    def render_graphs(self) -> Sequence[str]:
        """The graphs that a render needs as engines, the denoiser's last; empty where torch alone renders."""
        ...

    @property
    def take_turns(self) -> Sequence[str]:
        """Folders of networks of one shape, of which one at a time may be on the device; empty where all must be."""
        ...

    def claims(self, files: CheckpointFiles) -> bool:
        """Whether the checkpoint is of this kind, by its JSON files and the names of the others."""
        ...

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        """Raises `ModelUnavailable` for a checkpoint that is incomplete, or of a variant that is not supported."""
        ...

    def load(self, files: CheckpointFiles, placement: Placement) -> VideoModel:
        """Raises `ModelUnavailable` where weights are missing, damaged or do not fit."""
        ...

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        """How often each of the `render_graphs` runs in a render by default, where that is not once."""
        ...

    def graphs(self, model: Any, shape: ClipShape) -> list[Graph]:
        """What engines of that shape are built from, of a model of this family; may be empty."""
        ...
