"""The renders of this service in order: admission, position, cancellation, and how long each is kept.

Nothing here waits between looking at a render and changing it, so that no two calls can cross.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass

from contracts.errors import Problem
from contracts.models import VideoModelInfo
from contracts.videos import RenderResult, RenderStage, RenderState, RenderStatus
from video_service.queue.files import RenderFiles
from video_service.queue.measures import Clock, Pace, VideoMetrics, retry_after_s
from video_service.queue.render import (
    QueueFull,
    Render,
    RenderConflict,
    RenderNotFound,
    RenderStopping,
    Submission,
)

log = logging.getLogger(__name__)

_STOPPING_RETRY_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is taken and kept."""

    max_waiting: int
    keep_finished_s: float
    max_finished: int
    max_finished_bytes: int


class RenderQueue:
    """All renders, in memory. Lives on one event loop."""

    def __init__(self, files: RenderFiles, limits: Limits) -> None:
        self.pace = Pace()
        self.metrics = VideoMetrics()
        self._files = files
        self._limits = limits
        self._renders: dict[str, Render] = {}
        self._waiting: deque[Render] = deque()
        self._running: list[Render] = []  # several where they are one batch
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._running and not self._waiting

    @property
    def is_empty(self) -> bool:
        """Whether it is idle and no finished video is left, which somebody may still fetch."""
        return self.is_idle and not any(render.state == "completed" for render in self._renders.values())

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
            raise RenderNotFound(render_id) from None

    def status(self, render: Render) -> RenderStatus:
        """The status with the time to the end as of now."""
        return render.status.model_copy(update={"eta_s": self._eta_s(render)})

    def attach(self, submission: Submission) -> Render | None:
        """The render of this id and request that waits, runs or is completed.

        Raises `RenderConflict` where the id has another request, `RenderStopping` while it is being canceled.
        """
        render = self._renders.get(submission.render_id)
        if render is None:
            return None
        if render.digest != submission.digest:
            raise RenderConflict(f"The id {render.id} belongs to a render of another request; use a new id.")
        if render.state == "running" and render.stop_requested.is_set():
            raise RenderStopping(
                f"The render {render.id} is being canceled; put it again once it has stopped.",
                retry_after_s=_STOPPING_RETRY_S,
            )
        return render if render.state in ("queued", "running", "completed") else None

    def put(self, submission: Submission, info: VideoModelInfo) -> tuple[Render, bool]:
        """Find the render of this id and request, or queue it; true if it was queued now.

        A failed or canceled one is rendered again. Raises `QueueFull` and what `attach` raises; then nothing has
        changed.
        """
        if existing := self.attach(submission):
            return existing, False
        if len(self._waiting) >= self._limits.max_waiting:
            wait_s = retry_after_s(self._running[0].clock if self._running else None, self.pace, time.monotonic())
            raise QueueFull(
                f"{len(self._waiting)} renders are waiting, which is all that this service takes. A place should be "
                f"free in {wait_s} s.", retry_after_s=wait_s,
            )
        if submission.render_id in self._renders:
            self._forget(self._renders[submission.render_id])
        render = self._renders[submission.render_id] = Render(
            submission, info, self._files.new_folder(submission.render_id))
        if self._closed:
            render.history.close()
        self._waiting.append(render)
        self._renumber()
        self._changed.set()
        return render, True

    def stop(self, render_id: str) -> Render | None:
        """Cancel a queued or running render and return it; remove an ended one and return None.

        A running render has ended only when its status says so, within one denoising step. Raises `RenderNotFound`.
        """
        render = self.find(render_id)
        if render.is_terminal:
            self._forget(render)
            return None
        if render in self._running:
            render.stop_requested.set()
        else:
            self._waiting.remove(render)
            self._end(render, "canceled")
            self._renumber()
        return render

    async def wait(self) -> None:
        """Wait until a render is waiting."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()

    def start_next(self, most: int = 1) -> list[Render]:
        """Make the first waiting render a running one, with those that wait behind it and pay to be rendered with it,
        up to `most` together; empty if there is none (any more)."""
        self._running = self._next(most)
        for render in self._running:
            self._waiting.remove(render)
            render.clock = Clock(work=render.work, started_s=time.monotonic())
            render.move("running")
        self._renumber()
        return list(self._running)

    async def wait_for_company(self, most: int, window_s: float) -> None:
        """Give those a moment to come that the first waiting render would be rendered with."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(window_s):
                while self._waiting and len(self._next(most)) < self._wanted(self._waiting[0], most):
                    self._changed.clear()
                    await self._changed.wait()

    def _next(self, most: int) -> list[Render]:
        if not self._waiting:
            return []
        first = self._waiting[0]
        others = [other for other in self._waiting if other is not first and other.form == first.form]
        return [first, *others][: self._wanted(first, min(most, 1 + len(others)))]

    def _wanted(self, first: Render, most: int) -> int:
        return 1 if first.form is None else self.pace.batch_of(first.work, most)

    def advance(self, render: Render, stage: RenderStage, done: int, total: int) -> None:
        """Take in one report about a running render."""
        if render not in self._running or render.clock is None:
            return
        steps = render.clock.step
        render.clock.advance(stage, done, total, time.monotonic())
        if render.clock.step > steps and render is self._running[0]:
            self.metrics.step(render.clock.last_step_took_s)
        render.note(
            stage=stage, step=render.clock.step, num_steps=render.clock.num_steps,
            progress=round(render.clock.progress, 4), eta_s=self._eta_s(render),
        )

    def complete(self, render: Render, result: RenderResult) -> None:
        """A running render is done and its files are in place."""
        self.pace.learn(render.work, result)
        self._running.remove(render)
        self._end(render, "completed", result=result)
        self._renumber()

    def fail(self, render: Render, error: Problem | None) -> None:
        """A running render ended without a video: with that error, or canceled where there is none."""
        self._running.remove(render)
        self._end(render, "failed" if error else "canceled", error=error)
        self._renumber()

    def put_back(self, render: Render, *, alone: bool = False) -> None:
        """A running render was not begun: it is the first that waits again, or canceled if that was asked for.

        `alone`: its batch failed. It is not rendered with others again.
        """
        if render.stop_requested.is_set():
            self.fail(render, None)
            return
        self._running.remove(render)
        render.clock = None
        if alone:
            render.form = None
            self._files.discard(render.folder)
            render.folder = self._files.new_folder(render.id)
        render.move("queued")
        self._waiting.appendleft(render)
        self._renumber()
        self._changed.set()

    def drop_waiting(self) -> None:
        """Know nothing of what waits any more: nothing here can render it, and another service may."""
        while self._waiting:
            render = self._waiting.popleft()
            self._forget(render)
            log.warning("render dropped: nothing here can render it", extra={"render_id": render.id})
        self._renumber()

    def purge(self) -> None:
        """Remove ended renders that are too old or too many, in count or in bytes of video."""
        ended = sorted(
            (render for render in self._renders.values() if render.ended_at_s is not None),
            key=lambda render: render.ended_at_s or 0.0, reverse=True,
        )
        oldest_s = time.monotonic() - self._limits.keep_finished_s
        kept_bytes = 0
        for index, render in enumerate(ended):
            kept_bytes += render.status.result.num_bytes if render.status.result else 0
            too_much = index >= self._limits.max_finished or (index and kept_bytes > self._limits.max_finished_bytes)
            if too_much or (render.ended_at_s or 0.0) < oldest_s:
                self._forget(render)

    def _end(
        self, render: Render, state: RenderState, *, error: Problem | None = None, result: RenderResult | None = None
    ) -> None:
        before = render.status
        render.move(
            state, error=error, result=result, step=before.step, num_steps=before.num_steps,
            progress=1.0 if result else before.progress,
        )
        render.clock = render.request = None
        render.ended_at_s = time.monotonic()
        if result is None:
            self._files.discard(render.folder)
        self.metrics.ended(render.state, error.code if error else None, result)
        log.info("render %s", state, extra={"render_id": render.id, "code": error.code if error else None})

    def _forget(self, render: Render) -> None:
        del self._renders[render.id]
        render.history.close()
        self._files.discard(render.folder)

    def _renumber(self) -> None:
        """Tell every waiting render how many are before it."""
        self.metrics.at_work(waiting=len(self._waiting), running=len(self._running))
        for index, render in enumerate(self._waiting):
            render.note(queue_position=index + len(self._running))

    def _eta_s(self, render: Render) -> float | None:
        """Seconds until the render ends; None where something before that was never measured."""
        running = self._running[0].clock if self._running else None
        parts = [] if running is None else [running.remaining_s(self.pace, time.monotonic())]
        if render not in self._running:
            if render not in self._waiting:
                return None
            ahead = list(self._waiting)
            parts += [self.pace.total_s(waiting.work) for waiting in ahead[: ahead.index(render) + 1]]
        known = [part for part in parts if part is not None]
        return round(sum(known), 2) if parts and len(known) == len(parts) else None
