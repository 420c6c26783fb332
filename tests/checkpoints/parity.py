"""Our render of a clip beside that of a diffusers pipeline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from contracts.resolve import Sampling
from video_service.families.base import Batch, RenderRequest
from video_service.render.progress import Report, StageClock, silent
from video_service.render.render import render

PROMPT, NEGATIVE, SEED, FRAMES, SIDE = "A  cat &amp; a dog,\nslow zoom in", "blurred, static", 11, 9, 64
Clip = tuple[torch.Tensor, np.ndarray]
"""Final latents [1, C, t, h, w], and frames [T, H, W, 3]: ours as levels of 255, theirs from 0 to 1."""


def a_request(**changes: Any) -> RenderRequest:
    """Four Euler steps of a small clip."""
    sampling = Sampling(**{"sampler": "euler", "steps": 4, "guidance_scale": 1.0} | changes.pop("sampling", {}))
    fields: dict[str, Any] = {
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "image": None, "width": SIDE, "height": SIDE,
        "num_frames": FRAMES, "fps": 16, "seed": SEED, "sampling": sampling,
    }
    return RenderRequest(**fields | changes)


class Frames(list[np.ndarray]):
    """A sink that keeps what it is given."""

    def put(self, frames_THWC: torch.Tensor) -> None:
        self.append(frames_THWC.numpy())


class _Watched:
    """A model whose last latents are kept, clip by clip."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.latents: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        self.latents.append(latents)
        yield from self._model.decode(latents)


def ours(model: Any, *requests: RenderRequest, report: Report = silent) -> list[Clip]:
    """Each clip of the batch, as the loop renders it."""
    watched: Any = _Watched(model)
    sinks = [Frames() for _ in requests]
    render(watched, Batch(requests), sinks, StageClock(report))
    return [(own.float(), np.concatenate(sink)) for own, sink in zip(watched.latents, sinks, strict=True)]


def theirs(pipeline: Any, request: RenderRequest, *, shift: float = 3.0, **call: Any) -> Clip:
    """The same clip by a Wan pipeline of diffusers."""
    sampling = request.sampling
    if sampling.sampler == "euler":
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    else:
        pipeline.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
    return run_pipeline(
        pipeline, request, num_inference_steps=sampling.steps, guidance_scale=sampling.guidance_scale,
        height=request.height, width=request.width, num_frames=request.num_frames, **call,
    )


def run_pipeline(pipeline: Any, request: RenderRequest, **call: Any) -> Clip:
    """One call, with the request's words and seed."""
    pipeline.set_progress_bar_config(disable=True)
    latents: list[torch.Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents.append(tensors["latents"])
        return tensors

    generator = torch.Generator("cpu").manual_seed(request.seed)
    call |= {"prompt": request.prompt, "negative_prompt": request.negative_prompt, "callback_on_step_end": keep}
    frames = pipeline(**call, generator=generator, output_type="np").frames[0]
    return latents[-1], np.asarray(frames)


def assert_same(mine: Clip, expected: Clip, *, held: int = 0) -> None:
    """Latents to 1e-4, but for the first `held` that the pipeline sets after its last step; frames to rounding."""
    torch.testing.assert_close(mine[0][:, :, held:], expected[0][:, :, held:], rtol=1e-4, atol=1e-4)
    assert mine[1].shape == expected[1].shape
    # In levels of 255: half a level is the rounding to uint8.
    assert np.abs(mine[1] - expected[1] * 255.0).max() < 0.51
