"""One render on one worker: send it, follow it, stop it when asked or late, and say how it ended."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contracts.errors import Problem
from contracts.videos import RenderResult, RenderStage, RenderState
from video_service.queue.render import Render
from video_service.worker.messages import CancelCommand, Canceled, Completed, Failed, Outcome, Progress, RenderCommand
from video_service.worker.worker_process import WorkerDied, WorkerProcess
from web.calls import current_call

StopReason = Literal["canceled", "deadline"]
Advance = Callable[[RenderStage, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where the worker reads the request and leaves the video."""

    request: Path
    video: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a render may take, and how long it then has to stop by itself. Seconds."""

    render_timeout_s: float
    cancel_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of a render; `worker_lost` says why its worker cannot take another."""

    state: RenderState
    error: Problem | None = None
    result: RenderResult | None = None
    worker_lost: str | None = None
    gpu_memory: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


async def render_on(
    worker: WorkerProcess, render: Render, files: Files, advance: Advance, patience: Patience
) -> Ending:
    """Render to the end, whichever it is; a death of the worker ends the render, not this call."""
    call = current_call()
    worker.send(RenderCommand(
        render_id=render.id, request_path=files.request, output_path=files.video,
        request_id=call.request_id if call else None, traceparent=call.traceparent if call else None,
    ))
    following = asyncio.create_task(_follow(worker, render.id, advance))
    try:
        stopped_for = await _stop_when_due(worker, render, following, patience)
        try:
            return _ending(await following, stopped_for, patience)
        except WorkerDied as death:
            return _ending_by_death(death, stopped_for, patience)
    finally:
        following.cancel()


async def _follow(worker: WorkerProcess, render_id: str, advance: Advance) -> Outcome:
    while True:
        message = await worker.receive()
        if isinstance(message, Progress) and message.render_id == render_id:
            advance(message.stage, message.done, message.total)
        elif isinstance(message, Completed | Failed | Canceled) and message.render_id == render_id:
            return message


async def _stop_when_due(
    worker: WorkerProcess, render: Render, following: asyncio.Task[Outcome], patience: Patience
) -> StopReason | None:
    """Return once the render has ended: by itself (None), or stopped by request, then by force."""
    asked = asyncio.create_task(render.stop_requested.wait())
    try:
        await asyncio.wait({following, asked}, timeout=patience.render_timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    if following.done():
        return None
    reason: StopReason = "canceled" if render.stop_requested.is_set() else "deadline"
    worker.send(CancelCommand(render_id=render.id))
    await asyncio.wait({following}, timeout=patience.cancel_grace_s)
    if not following.done():  # a step that long, or a worker that hangs
        worker.kill()
        await asyncio.wait({following})  # bounded: the end of its socket follows its death
    return reason


def _ending(outcome: Outcome, stopped_for: StopReason | None, patience: Patience) -> Ending:
    if isinstance(outcome, Completed):  # also when it was faster than the wish to stop it
        return Ending(state="completed", result=outcome.result, gpu_memory=outcome.gpu_memory)
    if isinstance(outcome, Failed):
        lost = "An error left its device unusable." if outcome.fatal else None
        return Ending(state="failed", error=outcome.problem, worker_lost=lost)
    return _stopped(stopped_for, patience, worker_lost=None)


def _ending_by_death(death: WorkerDied, stopped_for: StopReason | None, patience: Patience) -> Ending:
    if stopped_for is not None:
        return _stopped(stopped_for, patience, worker_lost=str(death))
    error = Problem(
        status=500, code="worker_died", title="The worker died in this render",
        detail=f"The process that renders died. {death} Other renders go on; put this one again to retry.",
    )
    return Ending(state="failed", error=error, worker_lost=str(death))


def _stopped(reason: StopReason | None, patience: Patience, *, worker_lost: str | None) -> Ending:
    if reason != "deadline":
        return Ending(state="canceled", worker_lost=worker_lost)
    error = Problem(
        status=504, code="deadline_exceeded", title="The render took too long",
        detail=f"It was stopped after {patience.render_timeout_s:g} s; use a smaller size, fewer frames or fewer "
        "steps, or raise VIDEO_RENDER_TIMEOUT_S.",
    )
    return Ending(state="failed", error=error, worker_lost=worker_lost)
