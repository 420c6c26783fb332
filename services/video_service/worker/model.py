"""The model in its process: found, loaded, and called for one render at a time."""

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from contracts.models import VideoModelInfo
from contracts.videos import RenderResult, RenderStage, VideoRequest
from video_service.queue.files import output_path
from video_service.render.progress import RenderCanceled, Report
from video_service.settings import VideoSettings
from video_service.worker.failures import explain
from video_service.worker.messages import RenderProgress, RenderWork
from web.logs import configure_logging
from web.telemetry import configure_tracing
from web.worker.child import Handler, WorkerProgram
from web.worker.child import Report as WorkReport
from web.worker.errors import WorkCanceled
from web.worker.imports import lasting_imports


class Engine(Protocol):
    """A loaded model."""

    def __call__(self, request: VideoRequest, output: Path, report: Report) -> RenderResult:
        """Render into `output`; blocking. Raises `RenderCanceled` when `report` did."""
        ...


OpenModel = Callable[[VideoSettings], tuple[VideoModelInfo, Engine]]


def open_model(settings: VideoSettings) -> tuple[VideoModelInfo, Engine]:
    """See `video_service.model.open_model`."""
    # Imported here: torch takes seconds, in which the listening thread must already run.
    with lasting_imports():
        from video_service.model import open_model

    return open_model(settings)


def worker_program(open_engine: OpenModel) -> WorkerProgram:
    """What the worker process runs."""

    def opened(settings: VideoSettings) -> tuple[VideoModelInfo, Handler]:
        configure_logging("video_service.worker", settings.log_level)
        configure_tracing("video_service.worker")
        info, engine = open_engine(settings)
        return info, partial(_render, engine)

    return WorkerProgram(open_model=opened, explain=explain)


def _render(engine: Engine, work: RenderWork, report: WorkReport) -> RenderResult:
    def told(stage: RenderStage, done: int, total: int) -> None:
        try:
            report(RenderProgress(stage=stage, done=done, total=total))
        except WorkCanceled:
            raise RenderCanceled from None

    work.folder.mkdir()
    try:
        return engine(work.request, output_path(work.folder, "video"), told)
    except RenderCanceled:
        raise WorkCanceled from None
    finally:
        _release_memory()


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
