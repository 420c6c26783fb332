"""The OpenAI routes refuse in OpenAI's words: whatever answers with a problem there, its SDK sees what it knows."""

from collections.abc import Sequence

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.openai.videos import OpenAIError, OpenAIErrorDetail, SharedProblem

# Where OpenAI has one status for what we tell apart: its SDK raises BadRequestError.
_STATUS = {406: 400, 415: 400, 416: 416, 422: 400}
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


def _parameter(field: str) -> str:
    place, _, name = field.partition(".")
    return name if place in ("body", "query", "path", "header") and name else field


class OpenAIErrorMiddleware:
    """Rewrites every `application/problem+json` answer of the routes that OpenAI's SDKs call, whoever gave it.

    Those below `routes` answer as OpenAI's API does, and with its statuses; those below `shared` with problems like
    the rest of ours, in which `error` is what OpenAI's SDKs read.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[str], shared: Sequence[str] = ()) -> None:
        self.app, self.routes, self.shared = app, routes, shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shared = _is_below(self.shared, scope)
        if not shared and not _is_below(self.routes, scope):
            return await self.app(scope, receive, send)
        held: list[Message] = []

        async def rewrite(message: Message) -> None:
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type") == PROBLEM_MEDIA_TYPE:
                    held.append(message)
                    return
            elif held:  # a problem's body comes in one piece, perhaps followed by an empty last one
                start = held.pop()
                problem = Problem.model_validate_json(message["body"])
                status, body = _both(problem) if shared else _openais(problem)
                kind = PROBLEM_MEDIA_TYPE if shared else "application/json"
                await send({**start, "status": status, "headers": _headers(start["headers"], problem, kind, len(body))})
                message = {**message, "body": body}
            await send(message)

        return await self.app(scope, receive, rewrite)


def _is_below(routes: Sequence[str], scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    path = get_route_path(scope)
    return any(path == route or path.startswith(f"{route}/") for route in routes)


def _openais(problem: Problem) -> tuple[int, bytes]:
    return _STATUS.get(problem.status, problem.status), openai_error(problem).model_dump_json().encode()


def _both(problem: Problem) -> tuple[int, bytes]:
    said = SharedProblem(**dict(problem), error=openai_error(problem).error)
    return problem.status, said.model_dump_json(exclude_none=True).encode()


def _headers(
    raw: Sequence[tuple[bytes, bytes]], problem: Problem, kind: str, length: int
) -> list[tuple[bytes, bytes]]:
    headers = MutableHeaders(raw=list(raw))
    headers["content-type"] = kind
    headers["content-length"] = str(length)
    if problem.status in _NEVER_RETRIED:
        headers["x-should-retry"] = "false"
    return headers.raw
