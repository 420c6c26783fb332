"""What travels between the HTTP process and the worker, inside the messages of `web.worker`."""

from dataclasses import dataclass
from pathlib import Path

from contracts.videos import RenderResult, RenderStage, VideoRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderWork:
    """Render `request` into the video of `folder`."""

    request: VideoRequest
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWork:
    """Render these as one: equal in all but words, pictures and seed. The place of one that nobody waits for any more
    is said as a note."""

    clips: tuple[RenderWork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEnded:
    """A clip of a batch has its video, or has left without one."""

    place: int
    result: RenderResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAgain:
    """Look for the models that are absent; the answer is the `VideoModelList` as it is then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderProgress:
    """One report of a render; units of `done` and `total` as in `video_service.render.progress.Report`."""

    stage: RenderStage
    done: int
    total: int
