"""The renders of this service in order: admission, position, cancellation, and what becomes of each."""

import asyncio
import logging
import time
from collections import deque
from datetime import UTC, datetime, timedelta

from contracts.errors import Problem
from contracts.models import VideoModelInfo
from contracts.videos import RenderResult, RenderStage, RenderState, RenderStatus
from video_service.queue.estimates import Clock, Pace, retry_after_s
from video_service.queue.files import RenderStore
from video_service.queue.metrics import VideoMetrics
from video_service.queue.render import (
    QueueFull,
    Render,
    RenderConflict,
    RenderNotFound,
    RenderRecord,
    RenderStopping,
    Submission,
    new_record,
)

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A render that was running this often when the service died is taken to be the cause."""


class RenderQueue:
    """All renders, with at most `max_waiting` of them queued. Lives on one event loop; files are written off it."""

    def __init__(self, store: RenderStore, *, max_waiting: int, keep_finished_s: float, max_finished: int) -> None:
        self.store = store
        self.pace = Pace()
        self.metrics = VideoMetrics()
        self._max_waiting = max_waiting
        self._keep_finished = timedelta(seconds=keep_finished_s)
        self._max_finished = max_finished
        self._renders: dict[str, Render] = {}
        self._waiting: deque[Render] = deque()
        self._running: Render | None = None
        self._changed = asyncio.Event()
        self._admission = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._closed = False

    async def open(self) -> None:
        """Take up the renders found on disk: ended ones can be read again, the others are queued again."""
        for record in await asyncio.to_thread(self.store.load):
            render = self._renders[record.status.id] = Render(record)
            if render.state == "running":
                await self._take_up_interrupted(render)
            if render.state == "queued":
                self._waiting.append(render)
            if render.state == "completed" and not self.store.video_path(render.id).is_file():
                await self._end(render, "failed", error=_problem("file_lost", "The video file of this render is gone."))
        self._renumber()

    async def close(self) -> None:
        """End all followers; what is queued or running stays so on disk and is taken up by the next `open`."""
        self.end_followers()
        if self._running is not None:  # stopped in an orderly way: not an attempt that the render may be to blame for
            attempts = self._running.record.attempts - 1
            self._running.record = self._running.record.model_copy(update={"attempts": attempts})
            await self._save(self._running)

    def end_followers(self) -> None:
        """Let every reader of events go, now and later: the service stops."""
        self._closed = True
        for render in self._renders.values():
            render.history.close()

    def find(self, render_id: str) -> Render:
        """Raises `RenderNotFound`."""
        try:
            return self._renders[render_id]
        except KeyError:
            raise RenderNotFound(f"There is no render {render_id}.") from None

    def status(self, render: Render) -> RenderStatus:
        """The status with the time to the end as of now."""
        return render.record.status.model_copy(update={"eta_s": self._eta_s(render)})

    def attach(self, submission: Submission) -> Render | None:
        """The render of this id and body that waits, runs or is completed.

        Raises `RenderConflict` where the id has another body, `RenderStopping` while it is being canceled.
        """
        render = self._renders.get(submission.render_id)
        if render is None:
            return None
        if render.record.digest != submission.digest:
            raise RenderConflict(f"The id {render.id} belongs to a render of another body; use a new id.")
        if render.stop_requested.is_set():
            raise RenderStopping(f"The render {render.id} is being canceled; put it again once it has stopped.")
        return render if render.state in ("queued", "running", "completed") else None

    async def put(self, submission: Submission, info: VideoModelInfo) -> tuple[Render, bool]:
        """Find the render of this id and body, or queue it; true if it was queued now.

        A failed or canceled one is queued again. Raises `QueueFull` and what `attach` raises; then nothing has changed.
        """
        if existing := self.attach(submission):
            return existing, False
        self._refuse_when_full()
        async with self._admission:
            if existing := self.attach(submission):  # another call was first
                return existing, False
            self._refuse_when_full()
            return await self._admit(new_record(submission, info), submission.body), True

    async def stop(self, render_id: str) -> Render | None:
        """Cancel a queued or running render and return it; remove an ended one and return None.

        A running render has ended only when its status says so, within one denoising step. Raises `RenderNotFound`.
        """
        async with self._admission:
            render = self.find(render_id)
            if render.is_terminal:
                await self._forget(render)
                return None
            if render is not self._running:
                self._waiting.remove(render)
                await self._end(render, "canceled")
                self._renumber()
            elif not render.stop_requested.is_set():
                render.stop_requested.set()
                render.record = render.record.model_copy(update={"cancel_requested": True})
                await self._save(render)
            return render

    async def wait(self) -> None:
        """Wait until a render is waiting."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()

    async def next(self) -> Render | None:
        """Make the first waiting render the running one; None if there is none (any more)."""
        if not self._waiting:
            return None
        render = self._running = self._waiting.popleft()
        render.clock = Clock(work=render.work, started_s=time.monotonic())
        render.remember(render.record.model_copy(
            update={"status": render.record.moved("running"), "attempts": render.record.attempts + 1}
        ))
        self._renumber()
        await self._save(render)  # before the worker hears of it: the attempt counts even if it takes us down
        return render

    def advance(self, render: Render, stage: RenderStage, done: int, total: int) -> None:
        """Take in one report about the running render."""
        if render.clock is None:
            return
        steps = render.clock.step
        render.clock.advance(stage, done, total, time.monotonic())
        if render.clock.step > steps:
            self.metrics.step(render.clock.last_step_took_s)
        status = render.record.status.model_copy(update={
            "stage": stage, "step": render.clock.step, "num_steps": render.clock.num_steps,
            "progress": round(render.clock.progress, 4), "eta_s": self._eta_s(render),
        })
        render.remember(render.record.model_copy(update={"status": status}))

    async def finish(
        self, render: Render, state: RenderState, *, error: Problem | None = None, result: RenderResult | None = None
    ) -> None:
        """The running render has ended."""
        if result is not None:
            self.pace.learn(render.work, result)
        await self._end(render, state, error=error, result=result)
        self._running = None
        self._renumber()

    async def fail_waiting(self, error: Problem) -> None:
        """Fail everything that waits: nothing here can render it."""
        async with self._admission:
            while self._waiting:
                await self._end(self._waiting.popleft(), "failed", error=error)

    async def purge(self) -> None:
        """Remove ended renders that are too old or too many."""
        ended = sorted(
            (render for render in self._renders.values() if render.is_terminal),
            key=lambda render: render.record.finished_at or render.record.created_at,
        )
        oldest_kept = datetime.now(UTC) - self._keep_finished
        surplus = max(0, len(ended) - self._max_finished)
        for index, render in enumerate(ended):
            if index < surplus or (render.record.finished_at or render.record.created_at) < oldest_kept:
                async with self._admission:
                    if render.is_terminal:  # it may have been put again meanwhile
                        await self._forget(render)

    def _refuse_when_full(self) -> None:
        if len(self._waiting) >= self._max_waiting:
            clock = self._running.clock if self._running else None
            raise QueueFull(len(self._waiting), retry_after_s(clock, self.pace, time.monotonic()))

    async def _admit(self, record: RenderRecord, body: bytes) -> Render:
        known = self._renders.get(record.status.id)
        try:
            await asyncio.to_thread(self.store.create, record, body)
        except OSError:
            if known is None:
                await asyncio.to_thread(self.store.remove, record.status.id)
            raise
        if known is None:
            render = self._renders[record.status.id] = Render(record)
            if self._closed:
                render.history.close()
        else:
            render = known
            render.stop_requested = asyncio.Event()
            render.remember(record)
        self._waiting.append(render)
        self._renumber()
        self._changed.set()
        return render

    async def _take_up_interrupted(self, render: Render) -> None:
        if render.record.cancel_requested:
            await self._end(render, "canceled")
        elif (result := await asyncio.to_thread(self.store.unreported_result, render.id)) is not None:
            await self._end(render, "completed", result=result)
        elif render.record.attempts >= MAX_ATTEMPTS:
            await self._end(render, "failed", error=_problem(
                "interrupted", f"The service died {MAX_ATTEMPTS} times while rendering this; it is not tried again."
            ))
        else:
            render.remember(render.record.model_copy(update={"status": render.record.moved("queued")}))
            await self._save(render)

    async def _end(
        self, render: Render, state: RenderState, *, error: Problem | None = None, result: RenderResult | None = None
    ) -> None:
        before = render.record.status
        status = render.record.moved(
            state, error=error, result=result, step=before.step, num_steps=before.num_steps,
            progress=1.0 if state == "completed" else before.progress,
        )
        record = render.record.model_copy(
            update={"status": status, "finished_at": datetime.now(UTC), "cancel_requested": False}
        )
        if state != "completed":
            await asyncio.to_thread(self.store.clear_output, render.id)
        render.clock = None
        render.stop_requested.clear()
        render.record = record
        await self._save(render)
        self.metrics.ended(state, error.code if error else None, result)
        render.remember(record)  # told after it is on disk: who has seen the end will find it there
        log.info("render %s", state, extra={"render_id": render.id, "code": error.code if error else None})

    async def _save(self, render: Render) -> None:
        """Write the render's record as it is when its turn comes, so that the last write is the newest."""
        async with self._saving:
            if self._renders.get(render.id) is not render:  # removed meanwhile
                return
            try:
                await asyncio.to_thread(self.store.save, render.record)
            except OSError:
                # The render goes on in memory; after a restart it would be taken up from its last written state.
                log.exception("the state of a render could not be written", extra={"render_id": render.id})

    async def _forget(self, render: Render) -> None:
        del self._renders[render.id]
        async with self._saving:
            await asyncio.to_thread(self.store.remove, render.id)

    def _renumber(self) -> None:
        """Tell every waiting render how many are before it."""
        self.metrics.waiting(len(self._waiting))
        for index, render in enumerate(self._waiting):
            position = index + (self._running is not None)
            status = render.record.status.model_copy(update={"queue_position": position})
            render.remember(render.record.model_copy(update={"status": status}))

    def _eta_s(self, render: Render) -> float | None:
        """Seconds until the render ends; None where something before that was never measured."""
        clocks = [running.clock for running in (self._running,) if running is not None and running.clock is not None]
        parts = [clock.remaining_s(self.pace, time.monotonic()) for clock in clocks]
        if render is not self._running:
            if render not in self._waiting:
                return None
            ahead = list(self._waiting)
            parts += [self.pace.total_s(waiting.work) for waiting in ahead[: ahead.index(render) + 1]]
        known = [part for part in parts if part is not None]
        return round(sum(known), 2) if parts and len(known) == len(parts) else None


def _problem(code: str, detail: str) -> Problem:
    return Problem(status=500, code=code, title="The render failed", detail=f"{detail} Put it again to render again.")
