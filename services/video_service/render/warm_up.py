"""One render before the first request: the first of a size compiles kernels, chooses algorithms and captures graphs."""

import io
import tempfile
import time
from pathlib import Path
from typing import Protocol

from PIL import Image

from contracts.models import VideoModelInfo
from contracts.videos import RenderResult, VideoRequest
from video_service.render.progress import Report, silent

_WATCHED_STEPS = 2  # the first that are looked at between


class _Engine(Protocol):
    def __call__(self, request: VideoRequest, output: Path, report: Report) -> RenderResult: ...


def warm_up(engine: _Engine, model: VideoModelInfo) -> float:
    """Render the clip that a request without parameters gets, in as few steps as have a preview.

    Returns the seconds it took. Raises what the render raises; no file is left.
    """
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        engine(_request(model), Path(folder) / "video.mp4", silent)
    return time.monotonic() - start_s


def _request(model: VideoModelInfo) -> VideoRequest:
    width, height = map(int, model.sizes[0].split("x"))
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((width, height)).save(stream, "PNG")
    picture = None if model.tasks == ["t2v"] else stream.getvalue()
    sampler = model.samplers[0]
    steps = model.sampler_steps.get(sampler, model.steps)
    return VideoRequest(
        prompt="A slow pan over a plain.", image=picture, last_image=picture if model.tasks == ["flf2v"] else None,
        width=width, height=height, num_frames=model.num_frames.default, fps=model.fps.default,
        steps=min(max(_WATCHED_STEPS, steps.minimum), steps.maximum), sampler=sampler, seed=0, preview=True,
    )
