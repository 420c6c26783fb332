"""The loop of a render. It knows no family and no engine."""

from collections.abc import Sequence
from typing import Protocol

import torch

from video_service.families.base import Batch, VideoModel
from video_service.render.progress import StageClock


class Sink(Protocol):
    """Takes one clip's frames in order."""

    def put(self, frames_THWC: torch.Tensor) -> None: ...


@torch.inference_mode()
def render(model: VideoModel, batch: Batch, sinks: Sequence[Sink], stages: StageClock) -> Sequence[Sequence[str]]:
    """Render the batch into `sinks`, one for each request; returns the warnings of each.

    Raises what `stages` (`RenderCanceled`) and the sinks raise.
    """
    given = model.encode(batch, stages)
    solver = model.solver(batch, given)
    steps = len(solver.timesteps)
    with stages("denoise", steps):
        x = solver.start()
        for index, timestep in enumerate(solver.timesteps):
            x = solver.step(index, model.predict(x, timestep, given), x)
            if index + 1 < steps:  # the last one is told by the stage's end
                stages.done("denoise", index + 1, steps)
    frames, done = batch.first.num_frames, 0
    with stages("decode", frames):
        for frames_BTHWC in model.decode(x):
            for sink, own in zip(sinks, frames_BTHWC, strict=True):
                sink.put(own)
            done += frames_BTHWC.shape[1]
            if done < frames:
                stages.arrived("decode", done, frames)
    return given.warnings
