"""Gives the worker the renders that wait, one at a time or several as one, and says how each ended."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import Problem
from contracts.models import VideoModelList
from contracts.videos import RenderResult
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render
from video_service.settings import VideoSettings
from video_service.worker.batch import render_together, too_late
from video_service.worker.messages import RenderProgress, RenderWork
from web.calls import JOB_ID, working
from web.worker.errors import NotReady, WorkerDied, WorkFailed, WorkStopped
from web.worker.supervisor import Patience, Supervisor

WORKER_COMMAND = (sys.executable, "-m", "video_service.worker")


def supervise(
    settings: VideoSettings, renders: RenderQueue, command: Sequence[str] = WORKER_COMMAND
) -> Supervisor[VideoModelList]:
    """The supervisor of the process that renders; not started yet."""

    def on_loss() -> None:
        if supervisor.is_stuck:  # whoever follows what waits here learns that it is not known, and puts it elsewhere
            renders.drop_waiting()

    supervisor: Supervisor[VideoModelList] = Supervisor(
        command, settings.model_copy(update={"internal_token": None}), name=", ".join(settings.model_names),
        patience=Patience(load_timeout_s=settings.load_timeout_s, cancel_grace_s=settings.cancel_grace_s),
        on_gpu_memory=renders.metrics.gpu_memory, on_loss=on_loss,
    )
    return supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How many renders may be denoised as one, and how long the first of them waits for the others."""

    most: int = 1
    wait_s: float = 0.0


async def run_renders(
    renders: RenderQueue, worker: Supervisor[VideoModelList], *, render_timeout_s: float,
    batching: Batching = Batching(),
) -> None:
    """Render what waits, for ever."""
    while True:
        await worker.ready()
        await renders.wait()
        if batching.most > 1 and batching.wait_s:
            await renders.wait_for_company(batching.most, batching.wait_s)
        if worker.not_ready is None and (begun := renders.start_next(batching.most)):
            first, *others = begun
            with working("render", first.call | {JOB_ID: first.id}):
                if others:
                    await render_together(renders, begun, worker, render_timeout_s)
                else:
                    await _render(renders, first, worker, render_timeout_s)
            renders.purge()


async def _render(
    renders: RenderQueue, render: Render, worker: Supervisor[VideoModelList], timeout_s: float
) -> None:
    """Bring one render to its end, whichever it is."""
    assert render.request is not None

    def on_progress(progress: RenderProgress | VideoModelList) -> None:
        if isinstance(progress, VideoModelList):
            worker.info = progress
            return
        renders.advance(render, progress.stage, progress.done, progress.total)

    try:
        result: RenderResult = await worker.do(
            RenderWork(request=render.request, folder=render.folder), on_progress=on_progress,
            stop=render.stop_requested, timeout_s=timeout_s,
        )
    except NotReady:
        renders.put_back(render)
    except WorkFailed as error:
        renders.fail(render, error.problem)
    except WorkStopped as stopped:
        renders.fail(render, too_late(timeout_s) if stopped.reason == "deadline" else None)
    except WorkerDied as death:
        renders.fail(render, _died(death))
    else:
        renders.complete(render, result)


def _died(death: WorkerDied) -> Problem:
    return Problem(
        status=500, code="worker_died", title="The worker died in this render",
        detail=f"The process that renders died. {death} Where memory runs out, a smaller size or fewer frames need "
        "less. Other renders go on; put this one again to retry.",
    )
