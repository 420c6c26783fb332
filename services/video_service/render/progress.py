"""Progress and cancellation of a render, as one callback."""

from collections.abc import Callable

from contracts.videos import RenderStage

Report = Callable[[RenderStage, int, int], None]
"""Called as `report(stage, done, total)`; `done` counts finished units of that stage: prompts in `text`, pictures in
`condition`, steps in `denoise`, frames in `decode` and `write`. It may raise `RenderCanceled`."""


class RenderCanceled(Exception):
    """Raised by a `Report` to stop the render; nothing of it is left on disk."""


def silent(stage: RenderStage, done: int, total: int) -> None:
    """A `Report` for callers that want neither progress nor cancellation."""
