"""What a job is: its states as a table of legal transitions, and the record of one job."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict

from contracts.errors import Problem
from contracts.jobs import (
    DEFAULT_PRIORITY,
    TERMINAL_JOB_STATES,
    Awaited,
    EffectiveParameters,
    GenerateOptions,
    JobStage,
    JobState,
    VideoFile,
)
from contracts.refusal import Refusal
from gateway.auth.keys import LOCAL_OWNER
from web.calls import current_traceparent

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType({
    "queued": frozenset({"running", "failed", "canceled"}),
    "running": frozenset({"queued", "completed", "failed", "canceled"}),  # queued: released, as what it needs is away
    "completed": frozenset({"expired"}),
    "failed": frozenset(),
    "canceled": frozenset(),
    "expired": frozenset(),  # was completed; its files are gone
})
UNFINISHED: tuple[JobState, ...] = tuple(state for state in TRANSITIONS if state not in TERMINAL_JOB_STATES)


class JobNotFound(Refusal):
    """There is no job with this id."""

    status, code, title = 404, "job_not_found", "No such job"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id}; GET /v1/jobs lists those that there are.", job_id=job_id)


class IllegalTransition(Refusal):
    """The table does not lead from the job's present state to the wanted one; nothing was changed."""

    status, code, title = 409, "job_state_conflict", "The job's state does not allow it"

    def __init__(self, job_id: str, present: JobState, wanted: str) -> None:
        first = f"cancel it (POST /v1/jobs/{job_id}/cancel), then delete it"
        detail = f"The job is {present}: {first}." if wanted == "removed" else (
            f"The job is already {present}; nothing was changed.")
        super().__init__(detail, job_id=job_id, log=f"Job {job_id} is {present}; it cannot become {wanted}.")
        self.present: JobState = present


class ClaimLost(Exception):
    """The job was released to the queue since it was claimed: this claim changes nothing of it any more."""

    def __init__(self, job_id: str, claim: int) -> None:
        super().__init__(f"Job {job_id} was released after claim {claim}.")
        self.job_id = job_id


class QueueFull(Refusal):
    """As many jobs wait as may wait; nothing was added."""

    status, code, title = 429, "queue_full", "The queue is full"
    _told = "{} jobs wait, which is all that may: send the request again in 10 s."

    def __init__(self, limit: int) -> None:
        super().__init__(self._told.format(limit), retry_after_s=10)


class OwnerQueueFull(QueueFull):
    """As many jobs of one owner wait or run as may; nothing was added."""

    code, title = "too_many_jobs", "Too many jobs of yours"
    _told = "{} jobs of this key wait or run, all that may: wait for one to end, or cancel one."


class KeyReused(Refusal):
    """The `Idempotency-Key` belongs to a request with another body; nothing was added."""

    status, code, title = 422, "idempotency_key_reused", "The Idempotency-Key belongs to another request"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"This Idempotency-Key made {job_id} from another body: send a new key with a new request.", job_id=job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """What a waiting job needs and cannot have, and why."""

    what: Awaited
    detail: str
    away_s: float = 0.0
    """For how long, as far as this process knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPicture:
    """A picture on disk: the checked one that a job began with, or one made of its video."""

    file: str
    media_type: str
    num_bytes: int
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The size of a render: `voxels` = width x height x frames, and the network's passes over each of them."""

    model: str
    voxels: int
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job as it is accepted; `request` is what the caller asked, `parameters` what will be done."""

    id: str
    request: GenerateOptions
    parameters: EffectiveParameters
    picture: StoredPicture | None
    warnings: tuple[str, ...]
    request_id: str
    owner: str = LOCAL_OWNER
    priority: int = DEFAULT_PRIORITY
    idempotency_key: str | None = None
    fingerprint: str | None = None
    remixed_from: str | None = None
    last_picture: StoredPicture | None = None
    traceparent: str | None = field(default_factory=current_traceparent)  # the trace that its work goes on with

    @property
    def needs_vl(self) -> bool:
        """Whether its prompt has to be written."""
        return asks_for_prompt(self.request, self.picture is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it is stored. Times are seconds since the epoch; `sequence` orders jobs by arrival, `turn` by who runs
    first."""

    sequence: int
    id: str
    owner: str
    state: JobState
    stage: JobStage | None
    priority: int
    turn: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    request_id: str
    traceparent: str | None
    request: GenerateOptions
    parameters: EffectiveParameters
    picture: StoredPicture | None
    actual_prompt: str | None
    caption: str | None
    warnings: tuple[str, ...]
    timings: Mapping[str, float]
    render_attempt: int
    video: VideoFile | None
    error: Problem | None
    idempotency_key: str | None
    fingerprint: str | None
    remixed_from: str | None
    last_picture: StoredPicture | None
    """The one to end with."""
    thumbnail: StoredPicture | None
    spritesheet: StoredPicture | None
    expired_at: float | None
    claim: int
    """How often it was released; whoever claimed it before a release changes nothing of it any more."""
    waiting_for: Awaited | None
    """Why it was released last, with `waiting_detail`; it is left alone until `waiting_until` (since the epoch)."""
    waiting_detail: str | None
    waiting_until: float | None

    @property
    def needs_vl(self) -> bool:
        """Whether its prompt has yet to be written."""
        return self.actual_prompt is None and asks_for_prompt(self.request, self.picture is not None)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.state in TERMINAL_JOB_STATES


class Ending(TypedDict, total=False):
    """What is told of a job with its next state."""

    stage: JobStage | None
    video: VideoFile
    error: Problem
    timings: Mapping[str, float]
    thumbnail: StoredPicture | None
    spritesheet: StoredPicture | None
    claim: int


class Known(TypedDict, total=False):
    """What may become known of a running job."""

    stage: JobStage | None
    timings: Mapping[str, float]
    warning: str
    parameters: EffectiveParameters
    actual_prompt: str
    caption: str | None
    render_attempt: int
    claim: int


def asks_for_prompt(request: GenerateOptions, has_picture: bool) -> bool:
    """Whether the prompt is to be written; the caller's own words stand as they are otherwise."""
    enhances = request.enhance == "always" or (
        request.enhance == "auto" and (has_picture or bool(request.instruction or request.template))
    )
    return enhances or request.prompt is None


def work_of(parameters: EffectiveParameters) -> Work:
    """The size of a render with these parameters."""
    guided = (parameters.guidance_scale or 1.0) > 1.0  # guidance runs the network twice a step
    return Work(
        model=parameters.model, voxels=parameters.width * parameters.height * parameters.num_frames,
        passes=(parameters.steps or 1) * (2 if guided else 1),
    )


def new_job_id() -> str:
    """An id that cannot be guessed and that the video service takes as a render id."""
    return f"job_{secrets.token_hex(12)}"


def sources_of(state: JobState) -> frozenset[JobState]:
    """The states from which `state` may be entered."""
    return frozenset(source for source, targets in TRANSITIONS.items() if state in targets)
