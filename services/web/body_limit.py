"""The size limit of request bodies; what exceeds it is refused as problem+json."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import Problem
from web.problems import problem_response


class BodyLimitMiddleware:
    """Refuses request bodies above `max_bytes` with 413, unread where the client declares the size.

    FastAPI's own `max_body_size` answers in plain text when the client declares the size, whatever handlers there are.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            problem = Problem(status=413, code="body_too_large", title="The request is too large", detail=self._detail)
            return await problem_response(problem, {"Connection": "close"})(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self._detail)  # a route that reads the body lets it through to its handler
            return message

        return await self.app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return f"A request has at most {self.max_bytes / 2**20:.0f} MiB; send a smaller picture."
