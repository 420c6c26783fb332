"""What travels between the HTTP process and the worker, inside the messages of `web.worker`."""

from dataclasses import dataclass
from pathlib import Path

from contracts.videos import RenderStage, VideoRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderWork:
    """Render `request` into the video of `folder`."""

    request: VideoRequest
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAgain:
    """Look for the models that are absent; the answer is the `VideoModelList` as it is then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderProgress:
    """One report of a render; units of `done` and `total` as in `video_service.render.progress.Report`."""

    stage: RenderStage
    done: int
    total: int
