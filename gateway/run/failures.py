"""What went wrong with a job: its own fault, which stays on it as a problem, or something that passes."""

import errno
from dataclasses import dataclass

from obstore.exceptions import BaseError

from contracts.errors import Problem
from contracts.jobs import Awaited
from gateway.database.errors import DatabaseBusy, DatabaseDamaged
from gateway.services.errors import Kind, ServiceError

_PASSES: frozenset[Kind] = frozenset({"unavailable", "busy", "misconfigured", "not_found"})
_FAILS_AGAIN: frozenset[Kind] = frozenset({"refused"})
_RENDER_PASSES = frozenset({"model_unavailable", "disk_full", "unavailable", "busy"})
# The same request would fail the same way: rendering it again only makes its owner wait longer.
_RENDER_FAILS_AGAIN = frozenset({
    "out_of_memory", "render_failed", "deadline_exceeded", "interrupted",
})
# Nothing of a full disk, a used-up limit or a network file system is a job's fault; a file that is not there is lost.
_LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """What a job waits for, and the problem that it fails with where it may not wait (any more)."""

    what: Awaited
    detail: str
    problem: Problem
    retry_after_s: float = 0.0
    counts: bool = False
    """It may be the job's fault all the same: if it happens again, it is."""


class RenderFailed(Exception):
    """The video service ended the render without a video."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class JobFailed(Exception):
    """The job cannot be finished; `problem` is what its owner is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def judge(error: Exception) -> Passing | Problem:
    """Whether an error passes, or fails its job as the problem."""
    if isinstance(error, JobFailed):
        return error.problem
    if isinstance(error, RenderFailed):
        return _judge_render(error.problem)
    if isinstance(error, ServiceError):
        problem = error.problem
        if error.kind in _FAILS_AGAIN:
            return problem
        stopping = error.reported is not None and error.reported.code == "render_stopping"
        counts = error.kind not in _PASSES and not stopping
        return Passing(
            what=error.service, detail=str(error), problem=problem, retry_after_s=error.wait_s or 0.0, counts=counts,
        )
    if database_is_away(error):
        return _passing("database", error)
    if isinstance(error, BaseError) or (isinstance(error, OSError) and error.errno not in _LOST):
        return _passing("storage", error)
    return unexpected_problem()


def database_is_away(error: BaseException) -> bool:
    """Whether the database could not be used, whatever it was asked."""
    return isinstance(error, DatabaseBusy | DatabaseDamaged)


def _judge_render(problem: Problem) -> Passing | Problem:
    if problem.code in _RENDER_FAILS_AGAIN or problem.status == 422:
        return problem
    return Passing(
        what="video_service", detail=problem.detail, problem=problem, retry_after_s=float(problem.retry_after_s or 0),
        counts=problem.code not in _RENDER_PASSES,
    )


def overdue_problem(problem: Problem, waited_s: float) -> Problem:
    """The job waited as long as it may for what did not come back."""
    detail = f"The job waited for {waited_s:.0f} s, as long as GATEWAY_JOB_DEADLINE_S allows. {problem.detail}"
    return problem.model_copy(update={"detail": detail})


def absence_problem(what: Awaited, detail: str) -> Problem:
    """What a job needs is not there."""
    return Problem(
        status=503, code=f"{what}_unavailable", title=f"The {what} is unavailable",
        detail=f"{detail.rstrip('.')}. The /readyz of the gateway and its log say more; send the request again once it "
        "works.",
    )


def _passing(what: Awaited, error: Exception) -> Passing:
    said = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
    detail = f"{what}: cannot be used ({why})"
    return Passing(what=what, detail=detail, problem=absence_problem(what, detail))


def render_problem(reported: Problem | None) -> Problem:
    """A failed render in the video service's own words."""
    if reported is None:
        return Problem(
            status=502, code="render_failed", title="The render failed",
            detail="The video_service failed this render without a reason; its log has the cause.",
        )
    return reported.model_copy(update={"detail": f"video_service: {reported.detail}"})


def stopped_elsewhere(state: str) -> Problem:
    """A render that ended as `state` though nobody canceled the job."""
    return Problem(
        status=502, code="render_canceled", title="The render was stopped",
        detail=f"The video_service ended this render as {state} though nobody canceled the job here. "
        "Send the request again.",
    )


def unexpected_problem() -> Problem:
    """A failure that nobody foresaw."""
    return Problem(
        status=500, code="internal_error", title="The gateway failed",
        detail="The gateway failed in the middle of this job; its log has the cause. Send the request again.",
    )


def forgotten() -> Passing:
    """The engine could not write down what it did for a job."""
    detail = "database: what the engine did could not be written down"
    return Passing(what="database", detail=detail, problem=absence_problem("database", detail))


def crashed_too_often_problem() -> Problem:
    """Every process that carried this job on ended in the middle of it."""
    return Problem(
        status=500, code="crashed_too_often", title="The gateway ended too often at this job",
        detail="The gateway was killed or restarted again and again while it worked on this job, which may be the "
        "cause: it is not tried again. The gateway's log has what happened; if it was not this job, send it again.",
    )


def timeout_problem(limit_s: float) -> Problem:
    """The render took longer than a render may take."""
    return Problem(
        status=504, code="render_timeout", title="The render took too long",
        detail=f"The video_service did not finish within {limit_s:g} s. Ask for fewer frames, a smaller size or fewer "
        "steps, or raise GATEWAY_RENDER_TIMEOUT_S.",
    )
