"""The OpenAI routes refuse in OpenAI's words: what its SDK knows, whoever answers with a problem there."""

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.openai.videos import OpenAIError, OpenAIErrorDetail, SharedProblem
from web.edge import Said

# Where OpenAI has one status for what we tell apart: its SDK raises BadRequestError.
_STATUS = {406: 400, 415: 400, 422: 400}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {"unauthorized": "invalid_api_key", "queue_full": "rate_limit_exceeded", "job_not_found": "video_not_found"}
_NEVER_RETRIED = frozenset({409, 507})  # the SDK would repeat these by itself, and nothing would have changed


def openai_error(problem: Problem) -> OpenAIError:
    """The problem as OpenAI's error body."""
    field = _parameter(problem.errors[0].field) if problem.errors else None
    kind = "server_error" if problem.status >= 500 else _TYPES.get(problem.status, "invalid_request_error")
    return OpenAIError(error=OpenAIErrorDetail(
        message=problem.detail, type=kind, param=field, code=_CODES.get(problem.code, problem.code),
    ))


def openais(problem: Problem) -> Said:
    """As OpenAI's API answers, and with its statuses: a `web.edge.Dialect`."""
    return Said(
        status=_STATUS.get(problem.status, problem.status), media_type="application/json",
        body=openai_error(problem).model_dump_json().encode(), headers=_headers(problem),
    )


def shared(problem: Problem) -> Said:
    """A problem like the rest of ours, in which `error` is what OpenAI's SDKs read: a `web.edge.Dialect`."""
    said = SharedProblem(**dict(problem), error=openai_error(problem).error)
    return Said(
        status=problem.status, media_type=PROBLEM_MEDIA_TYPE,
        body=said.model_dump_json(exclude_none=True).encode(), headers=_headers(problem),
    )


def _headers(problem: Problem) -> dict[str, str]:
    return {"x-should-retry": "false"} if problem.status in _NEVER_RETRIED else {}


def _parameter(field: str) -> str:
    place, _, name = field.partition(".")
    return name if place in ("body", "query", "path", "header") and name else field
