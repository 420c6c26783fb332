"""Exception to problem+json mapping, installed once per app."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from contracts.errors import PROBLEM_MEDIA_TYPE, FieldProblem, Problem
from contracts.refusal import Refusal

log = logging.getLogger(__name__)

_MAX_FIELDS, _MAX_NAME_CHARS = 50, 100  # of an answer; a request may have thousands of wrong ones

_CODES = {
    400: "bad_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 406: "not_acceptable",
    413: "body_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable",
}


def code_of(status: int) -> str:
    """The stable code of an error that nobody named more closely."""
    return _CODES.get(status, "http_error")


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Render a problem, with `Retry-After` where it names a wait."""
    merged = dict(headers or {})
    if problem.status == 401:
        merged.setdefault("WWW-Authenticate", "Bearer")
    if problem.retry_after_s is not None:
        merged["Retry-After"] = str(problem.retry_after_s)
    return JSONResponse(
        problem.model_dump(mode="json", exclude_none=True), problem.status, merged, media_type=PROBLEM_MEDIA_TYPE
    )


def validation_problem(errors: Sequence[Any], title: str = "The request is not valid") -> Problem:
    """Turn pydantic's error list into one problem that names every refused field."""
    fields = [
        FieldProblem(field=".".join(str(part)[:_MAX_NAME_CHARS] for part in error["loc"]) or "body",
                     message=_message(error))
        for error in errors[:_MAX_FIELDS]
    ]
    detail = "; ".join(f"{f.field}: {f.message}" for f in fields[:5]) or "The request could not be read."
    return Problem(status=422, code="invalid_request", title=title, detail=detail, errors=fields)


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":  # pydantic's words name no way out
        return "There is no such field: check its spelling, or leave it out"
    return str(error["msg"])


async def answer_refusal(_: Request, refusal: Refusal) -> Response:
    """Its problem, as it is."""
    return problem_response(refusal.problem)


def install_problem_handlers(
    app: FastAPI, answer: Callable[[Request, Refusal], Awaitable[Response]] = answer_refusal
) -> None:
    """Make every error of `app` an `application/problem+json` body; `answer` is what becomes of a refusal."""

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return await answer(request, error)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(validation_problem(error.errors()))

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = Problem(
            status=error.status_code, code=code_of(error.status_code),
            title=str(error.detail), detail=str(error.detail),
        )
        return problem_response(problem, error.headers)

    async def on_crash(request: Request, error: Exception) -> Response:
        log.exception("unhandled error at %s %s", request.method, request.url.path, exc_info=error)
        return problem_response(Problem(
            status=500, code="internal_error", title="Internal error",
            detail="The server failed to answer; its log has the cause. Trying again is safe.",
        ))

    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_crash)
