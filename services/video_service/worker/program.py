"""The program of the process that owns the models: opened, called for the renders, and what their errors mean.

Imports no model library before the models are opened.
"""

import errno
import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from contracts.errors import Problem
from contracts.models import VideoModelList
from contracts.refusal import Refusal
from contracts.videos import RenderResult, RenderStage, VideoRequest
from video_service.queue.files import output_path
from video_service.render.progress import RenderCanceled, Report
from video_service.settings import VideoSettings
from video_service.worker.messages import BatchWork, ClipEnded, LookAgain, RenderProgress, RenderWork
from web.logs import configure_logging
from web.telemetry import configure_tracing
from web.worker.child import Handler, WorkerProgram
from web.worker.child import Report as WorkReport
from web.worker.errors import DeviceBroken, ModelUnavailable, WorkCanceled
from web.worker.faults import is_out_of_memory, one_line
from web.worker.imports import lasting_imports


class Models(Protocol):
    """Every model of the deployment; one of them at least is loaded."""

    def models(self) -> VideoModelList:
        """What there is now."""
        ...

    def look_again(self) -> VideoModelList:
        """The same, after a look for what was not there before."""
        ...

    def render(
        self, request: VideoRequest, output: Path, report: Report, tell: Callable[[VideoModelList], None]
    ) -> RenderResult:
        """Render into `output`; blocking. `tell` hears what there is where that changes. Raises `RenderCanceled` when
        `report` did."""
        ...

    def render_together(
        self, clips: Sequence[tuple[VideoRequest, Path]], report: Report, tell: Callable[[VideoModelList], None],
        left: Callable[[], frozenset[int]],
    ) -> list[RenderResult | None]:
        """The same for clips of one batch; None for each that has `left`."""
        ...


OpenModels = Callable[[VideoSettings], Models]


def open_models(settings: VideoSettings) -> Models:
    """See `video_service.deployment.open_models`."""
    # Imported here: torch takes seconds, in which the listening thread must already run.
    with lasting_imports():
        from video_service.deployment import open_models

    return open_models(settings)


def worker_program(open_all: OpenModels) -> WorkerProgram:
    """What the worker process runs."""

    def opened(settings: VideoSettings) -> tuple[VideoModelList, Handler]:
        configure_logging("video_service.worker", settings.log_level)
        configure_tracing("video_service.worker")
        models = open_all(settings)
        return models.models(), partial(_do, models)

    return WorkerProgram(open_model=opened, explain=explain, tidy_up=_release_memory)


def _do(
    models: Models, work: RenderWork | BatchWork | LookAgain, report: WorkReport
) -> RenderResult | VideoModelList | None:
    if isinstance(work, LookAgain):
        return models.look_again()
    try:
        if isinstance(work, BatchWork):
            return _render_together(models, work, report)
        work.folder.mkdir()
        return models.render(work.request, output_path(work.folder, "video"), _told(report), report)
    except RenderCanceled:
        raise WorkCanceled from None


def _render_together(models: Models, work: BatchWork, report: WorkReport) -> None:
    gone: set[int] = set()

    def left() -> frozenset[int]:
        for place in set(report.heard()) - gone:
            gone.add(place)
            report(ClipEnded(place=place, result=None))
        return frozenset(gone)

    for clip in work.clips:
        clip.folder.mkdir()
    clips = [(clip.request, output_path(clip.folder, "video")) for clip in work.clips]
    for place, result in enumerate(models.render_together(clips, _told(report), report, left)):
        if place not in gone:
            report(ClipEnded(place=place, result=result))


def _told(report: WorkReport) -> Report:
    def told(stage: RenderStage, done: int, total: int) -> None:
        try:
            report(RenderProgress(stage=stage, done=done, total=total))
        except WorkCanceled:
            raise RenderCanceled from None

    return told


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def explain(error: Exception) -> Problem:
    """What an exception in a render means to the caller."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # such as VideoWriteFailed's
    if isinstance(error, Refusal):
        return error.problem
    if isinstance(error, ModelUnavailable):
        return Problem(status=503, code="model_unavailable", title="The model is unavailable", detail=str(error))
    if is_out_of_memory(error) or is_out_of_memory(cause):
        return Problem(
            status=500, code="out_of_memory", title="Out of memory",
            detail="The machine has too little memory for this render; use a smaller size or fewer frames. "
            + one_line(error),
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            status=500, code="disk_full", title="Disk full",
            detail="There is no room for the video; free space under STILLMOTION_DATA and render again.",
        )
    if isinstance(error, DeviceBroken):  # by nothing that the render asked for: the next worker may do it
        return Problem(
            status=500, code="worker_died", title="The worker died in this render",
            detail=f"{one_line(error)} ({one_line(cause)}). The next one renders; put this one again to retry.",
        )
    return Problem(
        status=500, code="render_failed", title="The render failed",
        detail=f"{one_line(error)}. The log of the video service has the whole cause.",
    )
