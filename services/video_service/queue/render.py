"""One render: its states, their history for any number of readers, and how asking for it can go wrong."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contracts.models import VideoModelInfo
from contracts.refusal import Refusal
from contracts.resolve import resolve_request
from contracts.videos import TERMINAL_RENDER_STATES, RenderState, RenderStatus, VideoRequest
from video_service.queue.measures import Clock, Work
from web.calls import outgoing_headers

MAX_KEPT_EVENTS = 512
TRANSITIONS: dict[RenderState, frozenset[RenderState]] = {
    "queued": frozenset({"running", "canceled"}),
    "running": frozenset({"completed", "failed", "canceled", "queued"}),  # queued: its worker was gone before it began
    "completed": frozenset(),
    "failed": frozenset(),  # put again, it is a new render under the same id
    "canceled": frozenset(),
}


class IllegalTransition(Exception):
    """A fault of ours: the table has no such step."""


class RenderNotFound(Refusal):
    """There is no render of this id (any more): put it, and it will be rendered."""

    status, code, title = 404, "not_found", "No such render"

    def __init__(self, render_id: str) -> None:
        super().__init__(f"There is no render {render_id} here; put it (again) to have it rendered.")


class RenderConflict(Refusal):
    """The id belongs to a render of another request."""

    status, code, title = 409, "render_conflict", "The id is taken"


class RenderStopping(Refusal):
    """The render is being canceled; it can be put again once it has stopped."""

    status, code, title = 409, "render_stopping", "The render is being canceled"


class RenderNotFinished(Refusal):
    """The render has no content (yet)."""

    status, code, title = 409, "render_not_finished", "There is no video"

    def __init__(self, status: RenderStatus) -> None:
        why = f" {status.error.detail}" if status.error is not None else ""
        super().__init__(f"The render {status.id} is {status.state} and has no video.{why}")


class QueueFull(Refusal):
    """No place is free; one is expected in `retry_after_s`."""

    status, code, title = 429, "queue_full", "The queue is full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request under its id, and the SHA-256 of what it asks for."""

    render_id: str
    request: VideoRequest
    digest: str
    """Equal for equal fields, however they were written; a field that a later version adds changes nothing while it
    keeps its default."""

    @classmethod
    def of(cls, render_id: str, request: VideoRequest) -> Self:
        """Hash the request: some milliseconds for a large image, so call it off the event loop."""
        return cls(render_id=render_id, request=request, digest=request.digest())


class StatusHistory:
    """The last `MAX_KEPT_EVENTS` statuses under increasing ids.

    Readers hold a cursor and no queue: a slow one costs nothing and skips what fell out. Used on one event loop.
    """

    def __init__(self, first: RenderStatus) -> None:
        # Ids start at the clock, so that they go on increasing when the service restarts and forgets its counters.
        self._last_id = time.time_ns() // 1_000_000
        self._events: deque[tuple[int, RenderStatus]] = deque([(self._last_id, first)], maxlen=MAX_KEPT_EVENTS)
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def latest(self) -> RenderStatus:
        return self._events[-1][1]

    def append(self, status: RenderStatus) -> None:
        """Add a change and wake the readers; a status equal to the latest is no change. Pictures of it before are let
        go of."""
        if status == self.latest:
            return
        if self.latest.preview is not None:
            self._events[-1] = self._events[-1][0], self.latest.model_copy(update={"preview": None})
        self._last_id += 1
        self._events.append((self._last_id, status))
        self._wake()

    def close(self) -> None:
        """End every reader, now and later: the service stops."""
        self._closed = True
        self._wake()

    async def follow(self, after: int | None = None) -> AsyncIterator[tuple[int, RenderStatus]]:
        """Yield `(id, status)`: what is kept since event `after` (by default only the latest), then every change.

        Ends after a terminal status.
        """
        cursor = after if after is not None and after <= self._last_id else self._last_id - 1
        while True:
            changed = self._changed  # taken before reading, so that no change slips between reading and waiting
            for event_id, status in list(self._events):
                if event_id > cursor:
                    cursor = event_id
                    yield event_id, status
            if changed is self._changed and (self._closed or self.latest.state in TERMINAL_RENDER_STATES):
                return
            await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Render:
    """One render in memory: where it stands, who follows it, and the wish to stop it. Used on one event loop.

    `folder` is its own: another render of the same id, before or after, has another one.
    """

    def __init__(self, submission: Submission, info: VideoModelInfo, folder: Path) -> None:
        request = submission.request
        resolved = resolve_request(request, info)
        sampling = resolved.sampling
        self.id = submission.render_id
        self.digest = submission.digest
        self.folder = folder
        self.request: VideoRequest | None = request
        """Let go of at the end: it holds an image of megabytes."""
        self.work = Work(
            model=info.id, voxels=request.width * request.height * request.num_frames,
            # Guidance runs the network twice a step: with and without the prompt.
            passes=sampling.steps * (2 if sampling.guidance_scale > 1 else 1),
        )
        self.form: object = None if not info.batches else (
            info.id, resolved, tuple(request.loras), request.image is None, request.last_image is None)
        """Renders of an equal one may be one batch; None for one that is rendered alone."""
        self.call = outgoing_headers()
        """Of whoever asked for the render: it is logged, and traced, under the same ids."""
        self.history = StatusHistory(RenderStatus(id=self.id, state="queued"))
        self.stop_requested = asyncio.Event()
        self.clock: Clock | None = None
        """Set while running."""
        self.ended_at_s: float | None = None
        """Monotonic seconds."""

    @property
    def status(self) -> RenderStatus:
        return self.history.latest

    @property
    def state(self) -> RenderState:
        return self.status.state

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_RENDER_STATES

    def move(self, state: RenderState, **changes: object) -> None:
        """Take a legal step and tell the followers; raises `IllegalTransition`."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"render {self.id} cannot go from {self.state} to {state}")
        self.history.append(RenderStatus.model_validate({"id": self.id, "state": state, **changes}))

    def note(self, **changes: object) -> None:
        """Tell the followers something new within the same state."""
        self.history.append(self.status.model_copy(update=changes))
