"""One id per request, from the caller or drawn here, on the answer, on the logs and on every internal call."""

import re
import secrets
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")
_current: ContextVar[str | None] = ContextVar("stillmotion_request_id", default=None)


def current_request_id() -> str | None:
    """The id of the request, or of the job, that this task works for."""
    return _current.get()


def work_for(request_id: str) -> None:
    """Let this task, and the calls it makes, carry `request_id`."""
    _current.set(request_id)


class RequestIdMiddleware:
    """Takes a well-formed `X-Request-ID` from the caller, else draws one, and returns it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else secrets.token_hex(12)
        work_for(request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        return await self.app(scope, receive, send_with_id)
