"""The loop of a render. It knows no family and no engine."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch

from video_service.families.base import Batch, VideoModel
from video_service.render.progress import RenderCanceled, StageClock


class Sink(Protocol):
    """Takes one clip's frames in order."""

    def put(self, frames_THWC: torch.Tensor) -> None: ...


Left = Callable[[], frozenset[int]]
"""The clips of a batch, by their places, that nobody waits for any more; it only grows."""


Glimpse = Callable[[], torch.Tensor | None]
Seen = Callable[[Sequence[int], Glimpse], None]
"""Told after a step which clips are here, and how to have a look at them: see `VideoModel.glimpse`."""


def unseen(here: Sequence[int], look: Glimpse) -> None:
    """Nobody watches."""


def nobody() -> frozenset[int]:
    """All stay: a clip that is rendered alone is canceled by its report."""
    return frozenset()


@torch.inference_mode()
def render(
    model: VideoModel, batch: Batch, sinks: Sequence[Sink], stages: StageClock, left: Left = nobody,
    seen: Seen = unseen,
) -> Sequence[Sequence[str]]:
    """Render the batch into `sinks`, one for each request; returns the warnings of each.

    A clip that has `left` is out of the batch from the next step on, and its sink gets no more frames.
    Raises what `stages` (`RenderCanceled`) and the sinks raise.
    """
    given = model.encode(batch, stages)
    warnings, here = given.warnings, list(range(len(sinks)))
    solver = model.solver(batch, given)
    steps = len(solver.timesteps)
    with stages("denoise", steps):
        x = solver.start()
        for index, timestep in enumerate(solver.timesteps):
            if stay := _stay(here, left()):
                x, given, solver = x[stay], given.keep(stay), solver.keep(stay)
                here = [here[place] for place in stay]
            prediction = model.predict(x, timestep, given)
            before, x = x, solver.step(index, prediction, x)
            if index + 1 < steps:  # the last one is told by the stage's end
                stages.done("denoise", index + 1, steps)
                seen(here, partial(model.glimpse, before, timestep, prediction))
    frames, done = batch.first.num_frames * len(here), 0
    with stages("decode", frames):
        for place, clip in enumerate(here):  # one by one: memory stays that of a clip, and so do the numbers
            for frames_1THWC in model.decode(x[place : place + 1]):
                if clip in left():
                    break
                sinks[clip].put(frames_1THWC[0])
                done += frames_1THWC.shape[1]
                if done < frames:
                    stages.arrived("decode", done, frames)
    return warnings


def _stay(here: Sequence[int], left: frozenset[int]) -> list[int]:
    """The places of those that stay where some have left, else none. Raises `RenderCanceled` where all have."""
    if left.isdisjoint(here):
        return []
    stay = [place for place, clip in enumerate(here) if clip not in left]
    if not stay:
        raise RenderCanceled
    return stay
