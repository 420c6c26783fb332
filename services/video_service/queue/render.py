"""A render as the HTTP process knows it: its states, what is remembered of it, and how asking for it can go wrong."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from contracts.models import FrozenModel, VideoModelInfo
from contracts.videos import TERMINAL_RENDER_STATES, RenderState, RenderStatus, VideoRequest
from video_service.catalog import resolve_sampling
from video_service.queue.estimates import Clock, Work
from video_service.queue.history import StatusHistory
from web.calls import current_call

LEGAL_TRANSITIONS: dict[RenderState, frozenset[RenderState]] = {
    "queued": frozenset({"running", "failed", "canceled"}),
    "running": frozenset({"completed", "failed", "canceled", "queued"}),  # queued: the service died and came back
    "completed": frozenset({"failed"}),  # its file was lost
    "failed": frozenset({"queued"}),  # put again: a retry
    "canceled": frozenset({"queued"}),
}


class RenderError(Exception):
    """Something asked of the renders that cannot be done; `app.py` maps each kind to a problem."""


class RenderNotFound(RenderError):
    """There is no render of this id, or it was removed."""


class RenderConflict(RenderError):
    """The id belongs to a render of another body."""


class RenderStopping(RenderError):
    """The render is being canceled; it can be put again once it has stopped."""


class RenderNotFinished(RenderError):
    """The render has no content (yet)."""

    def __init__(self, status: RenderStatus) -> None:
        super().__init__(f"The render is {status.state}.")
        self.status = status


class QueueFull(RenderError):
    """No place is free; one is expected in `retry_after_s` seconds."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} renders are waiting, which is all that this service takes.")
        self.retry_after_s = retry_after_s


class RenderRecord(FrozenModel):
    """What is kept on disk of a render, beside its request and its video."""

    status: RenderStatus
    digest: str
    """SHA-256 of the request: the same id with another digest is a conflict."""
    voxels: int
    passes: int
    created_at: datetime
    finished_at: datetime | None = None
    attempts: int = 0
    """How often rendering was begun; bounds what is begun again after the service died."""
    cancel_requested: bool = False
    request_id: str | None = None
    """Of the call that asked for the render; its work is logged, and traced, under the same."""
    traceparent: str | None = None

    def moved(self, state: RenderState, **changes: object) -> RenderStatus:
        """The status after a legal step to `state`; raises `ValueError` for an illegal one."""
        if state not in LEGAL_TRANSITIONS[self.status.state]:
            raise ValueError(f"render {self.status.id} cannot go from {self.status.state} to {state}")
        return RenderStatus.model_validate({"id": self.status.id, "state": state, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request under its id, as the bytes that are kept and their SHA-256."""

    render_id: str
    request: VideoRequest
    body: bytes
    digest: str
    """Equal for equal fields, however they were written."""

    @classmethod
    def of(cls, render_id: str, request: VideoRequest) -> Self:
        """Encode and hash the request: some milliseconds for a large picture, so call it off the event loop."""
        body = request.model_dump_json().encode()
        return cls(render_id=render_id, request=request, body=body, digest=hashlib.sha256(body).hexdigest())


def new_record(submission: Submission, info: VideoModelInfo) -> RenderRecord:
    """The record of a render that is queued now."""
    request = submission.request
    sampling = resolve_sampling(request, info)
    call = current_call()
    return RenderRecord(
        request_id=call.request_id if call else None, traceparent=call.traceparent if call else None,
        status=RenderStatus(id=submission.render_id, state="queued"), digest=submission.digest,
        voxels=request.width * request.height * request.num_frames,
        # Guidance runs the network twice a step: with and without the prompt.
        passes=sampling.steps * (2 if sampling.guidance_scale > 1 else 1), created_at=datetime.now(UTC),
    )


class Render:
    """One render in memory: its record, who follows it, and the wish to stop it. Used on one event loop."""

    def __init__(self, record: RenderRecord) -> None:
        self.record = record
        self.history = StatusHistory(record.status)
        self.stop_requested = asyncio.Event()
        self.clock: Clock | None = None
        """Set while running."""

    @property
    def id(self) -> str:
        return self.record.status.id

    @property
    def state(self) -> RenderState:
        return self.record.status.state

    @property
    def work(self) -> Work:
        return Work(voxels=self.record.voxels, passes=self.record.passes)

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_RENDER_STATES

    def remember(self, record: RenderRecord) -> None:
        """Replace the record and tell the followers."""
        self.record = record
        self.history.append(record.status)
