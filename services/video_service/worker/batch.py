"""Renders that the worker denoises as one: each has its own progress and its own end, and none suffers another's."""

import asyncio
import logging
from collections.abc import Sequence

from contracts.errors import Problem
from contracts.models import VideoModelList
from contracts.videos import VideoRequest
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render
from video_service.worker.messages import BatchWork, ClipEnded, RenderProgress, RenderWork
from web.worker.errors import NotReady, WorkerDied, WorkFailed, WorkStopped
from web.worker.supervisor import Supervisor

log = logging.getLogger(__name__)


async def render_together(
    renders: RenderQueue, begun: Sequence[Render], worker: Supervisor[VideoModelList], timeout_s: float
) -> None:
    """Bring a batch to its end. One that fails as a whole is rendered one by one; whose fault it was shows then."""
    present = dict(enumerate(begun))
    leaving: asyncio.Queue[int] = asyncio.Queue()
    all_left = asyncio.Event()

    def on_progress(progress: RenderProgress | ClipEnded | VideoModelList) -> None:
        if isinstance(progress, VideoModelList):
            worker.info = progress
        elif isinstance(progress, ClipEnded):
            _end(renders, present.pop(progress.place), progress)
        else:
            for render in present.values():
                renders.advance(render, progress.stage, progress.done, progress.total)

    async def leave_when_asked(place: int) -> None:
        await present[place].stop_requested.wait()
        leaving.put_nowait(place)
        if all(render.stop_requested.is_set() for render in present.values()):
            all_left.set()

    watching = [asyncio.create_task(leave_when_asked(place)) for place in present]
    log.info("renders as one batch", extra={"render_ids": [render.id for render in begun]})
    try:
        await worker.do(
            BatchWork(clips=tuple(RenderWork(request=_request(one), folder=one.folder) for one in begun)),
            on_progress=on_progress, stop=all_left, timeout_s=timeout_s * len(begun), notes=leaving,
        )
    except NotReady:
        _put_back(renders, present, alone=False)
    except WorkStopped as stopped:
        for render in present.values():
            renders.fail(render, too_late(timeout_s) if stopped.reason == "deadline" else None)
    except (WorkFailed, WorkerDied) as error:
        log.warning("a batch failed, its renders go on one by one: %s", error)
        renders.pace.avoid(begun[0].work, len(begun))
        _put_back(renders, present, alone=True)
    finally:
        for task in watching:
            task.cancel()


def _request(render: Render) -> VideoRequest:
    assert render.request is not None
    return render.request


def _end(renders: RenderQueue, render: Render, ended: ClipEnded) -> None:
    if ended.result is None:
        renders.fail(render, None)
    else:
        renders.complete(render, ended.result)


def _put_back(renders: RenderQueue, present: dict[int, Render], *, alone: bool) -> None:
    for render in reversed(present.values()):  # each becomes the first that waits
        renders.put_back(render, alone=alone)


def too_late(timeout_s: float) -> Problem:
    return Problem(
        status=504, code="deadline_exceeded", title="The render took too long",
        detail=f"It was stopped after {timeout_s:g} s; use a smaller size, fewer frames or fewer steps, or raise "
        "VIDEO_RENDER_TIMEOUT_S.",
    )
