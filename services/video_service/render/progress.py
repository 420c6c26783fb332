"""Progress, cancellation and the timings of a render."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contracts.videos import RenderStage

if TYPE_CHECKING:  # the worker reads this file before it listens to the HTTP process, and torch takes seconds
    import torch

Report = Callable[[RenderStage, int, int], None]
"""Called as `report(stage, done, total)`; `done` counts finished units of that stage: prompts in `text`, pictures in
`condition`, steps in `denoise`, frames in `decode` and `write`. It may raise `RenderCanceled`."""


class RenderCanceled(Exception):
    """Raised by a `Report` to stop the render; nothing of it is left on disk."""


def silent(stage: RenderStage, done: int, total: int) -> None:
    """A `Report` for callers that want neither progress nor cancellation."""


class StageClock:
    """Runs the stages of one render: `with stages("text"): ...` reports its begin and end, and measures it.

    On a GPU, work counts as done when the device has done it, not when it was queued.
    """

    def __init__(self, report: Report, device: "torch.device | None" = None) -> None:
        self._report = report
        self._device = device if device is not None and device.type == "cuda" else None
        self._started_s = time.perf_counter()
        self._seconds: dict[RenderStage, float] = {}
        self._waits: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: RenderStage, total: int = 1) -> Iterator[None]:
        start_s = time.perf_counter()
        self.done(stage, 0, total)
        yield
        self.done(stage, total, total)
        self._seconds[stage] = time.perf_counter() - start_s

    def done(self, stage: RenderStage, done: int, total: int) -> None:
        """Report units within a stage, once the device has done them. Raises what `report` raises."""
        if self._device is not None:
            import torch

            torch.cuda.synchronize(self._device)
        self.arrived(stage, done, total)

    def arrived(self, stage: RenderStage, done: int, total: int) -> None:
        """The same of units that are here, while the device may be at the next ones already."""
        self._report(stage, done, total)

    def waited(self, reason: str, seconds: float) -> None:
        """Within the stages so much was lost; it is added up by reason."""
        self._waits[reason] = self._waits.get(reason, 0.0) + seconds

    def timings(self) -> dict[str, float]:
        """Seconds by stage, what of them was waiting by its reason, and `total` since the clock was made."""
        return {**self._seconds, **self._waits, "total": time.perf_counter() - self._started_s}
