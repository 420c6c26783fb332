"""The models in their process: found, loaded, and called for one render at a time."""

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from contracts.models import VideoModelList
from contracts.videos import RenderResult, RenderStage, VideoRequest
from video_service.queue.files import output_path
from video_service.render.progress import RenderCanceled, Report
from video_service.settings import VideoSettings
from video_service.worker.failures import explain
from video_service.worker.messages import LookAgain, RenderProgress, RenderWork
from web.logs import configure_logging
from web.telemetry import configure_tracing
from web.worker.child import Handler, WorkerProgram
from web.worker.child import Report as WorkReport
from web.worker.errors import WorkCanceled
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


def _do(models: Models, work: RenderWork | LookAgain, report: WorkReport) -> RenderResult | VideoModelList:
    return models.look_again() if isinstance(work, LookAgain) else _render(models, work, report)


def _render(models: Models, work: RenderWork, report: WorkReport) -> RenderResult:
    def told(stage: RenderStage, done: int, total: int) -> None:
        try:
            report(RenderProgress(stage=stage, done=done, total=total))
        except WorkCanceled:
            raise RenderCanceled from None

    work.folder.mkdir()
    try:
        return models.render(work.request, output_path(work.folder, "video"), told, report)
    except RenderCanceled:
        raise WorkCanceled from None


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
