"""Why a job failed: which service, what happened and what to do, as the problem that stays on the job."""

from contracts.errors import Problem
from gateway.services.clients import Kind, ServiceError

_NEXT_STEP: dict[Kind, str] = {
    "unavailable": "Check that it runs and is ready (its /readyz says why not), then send the request again.",
    "busy": "It has more work than it takes: send the request again later.",
    "refused": "Change what it names and send the request again.",
    "failed": "Its log has the cause; sending the request again is safe.",
    "not_found": "It no longer knows this render; send the request again.",
    "conflict": "Send the request again.",
}
_STATUS: dict[Kind, int] = {"unavailable": 503, "busy": 503, "refused": 422}


class JobFailed(Exception):
    """The job cannot be finished; `problem` is what its owner is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def service_problem(error: ServiceError) -> Problem:
    """A service's failure as a problem with the code `<service>_<kind>`."""
    unavailable = error.kind in ("unavailable", "busy")
    return Problem(
        status=_STATUS.get(error.kind, 502), code=f"{error.service}_{error.kind}",
        title=f"The {error.service} is {error.kind}" if unavailable else f"The {error.service} did not do its part",
        detail=f"The {error.service} {_sentence(error)} {_NEXT_STEP[error.kind]}",
        retry_after_s=round(error.retry_after_s or 5) if unavailable else None,
        errors=error.problem.errors if error.problem else None,
    )


def render_problem(reported: Problem | None) -> Problem:
    """A failed render in the video service's own words."""
    if reported is None:
        return Problem(
            status=502, code="render_failed", title="The render failed",
            detail="The video_service failed this render without a reason; its log has the cause.",
        )
    return reported.model_copy(update={"detail": f"video_service: {reported.detail}"})


def unexpected_problem() -> Problem:
    """A failure that nobody foresaw."""
    return Problem(
        status=500, code="internal_error", title="The gateway failed",
        detail="The gateway failed in the middle of this job; its log has the cause. Send the request again.",
    )


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


def _sentence(error: ServiceError) -> str:
    if error.kind in ("unavailable", "busy") and error.problem is None:
        return error.detail.rstrip(".") + "."
    verb = {"refused": "refused", "busy": "is busy", "unavailable": "is not available"}.get(error.kind, "failed")
    return f"{verb}: {error.detail.rstrip('.')}."
