"""What every HTTP app has between the socket and its routes: series, errors as problems, the token, body sizes, and
clients who leave before they are answered.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram
from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.refusal import Refusal
from web.calls import CallMiddleware
from web.problems import code_of, problem_response
from web.telemetry import HEALTH_PATHS

_SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
_MAX_TEXT_BYTES = 2000
_OF_THE_OLD_BODY = frozenset({b"content-type", b"content-length"})
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A problem in other words."""

    status: int
    media_type: str
    body: bytes
    headers: Mapping[str, str]


Dialect = Callable[[Problem], Said]


def add_edge(
    app: FastAPI, registry: CollectorRegistry, *, token: str | None, max_bytes: int,
    dialects: Mapping[str, Dialect] | None = None,
) -> None:
    """All of it for a service that answers the gateway alone."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_bytes)
    app.add_middleware(InternalTokenMiddleware, token=token)
    app.add_middleware(ErrorBodiesMiddleware, dialects=dialects or {})
    app.add_middleware(HttpMetricsMiddleware, registry=registry)
    app.add_middleware(CallMiddleware, internal=True)


def is_local_name(name: str) -> bool:
    """Whether no other server's name can lead here: loopback, or an address itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HttpMetricsMiddleware:
    """Counts requests and measures the time until their answer begins, by method, route and status."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self._seconds = Histogram(
            "stillmotion_http_request_seconds", "Time until the answer begins.", ("method", "route", "status"),
            registry=registry, buckets=_SECONDS_BUCKETS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.monotonic()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's template, not the path: ids in labels would make a series for every job.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if route != "none" else "none"
                self._seconds.labels(method, route, str(message["status"])).observe(time.monotonic() - started)
            await send(message)

        return await self.app(scope, receive, measured)


class ErrorBodiesMiddleware:
    """Says an error as a problem where a framework says it in plain text, such as file responses (400, 416) and body
    limits (413) do; and a problem, whoever gave it, in the dialect of the route that it is the answer of.

    `dialects` go by the paths below which they are spoken.
    """

    def __init__(self, app: ASGIApp, dialects: Mapping[str, Dialect]) -> None:
        self.app = app
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        held: Message | None = None
        text = bytearray()

        async def converted(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and (
                _is_plain_error(message) or (_is_problem(message) and self._dialect(scope))
            ):
                held = message
            elif held is None:
                await send(message)
            elif _is_problem(held):  # its body comes in one piece, perhaps followed by an empty last one
                start, held = held, None
                await self._say_in_dialect(start, message, scope, send)
            else:
                text.extend(message.get("body", b"")[:_MAX_TEXT_BYTES])
                if not message.get("more_body", False):
                    await _problem_of(held, bytes(text))(scope, receive, send)

        return await self.app(scope, receive, converted)

    def _dialect(self, scope: Scope) -> Dialect | None:
        path = get_route_path(scope)
        below = (said for prefix, said in self._dialects.items() if path == prefix or path.startswith(f"{prefix}/"))
        return next(below, None)

    async def _say_in_dialect(self, start: Message, message: Message, scope: Scope, send: Send) -> None:
        dialect = self._dialect(scope)
        assert dialect is not None
        said = dialect(Problem.model_validate_json(message["body"]))
        headers = MutableHeaders(raw=list(start["headers"]))
        headers.update({"content-type": said.media_type, "content-length": str(len(said.body)), **said.headers})
        await send({**start, "status": said.status, "headers": headers.raw})
        await send({**message, "body": said.body})


def _is_plain_error(message: Message) -> bool:
    return message["status"] >= 400 and Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


def _is_problem(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type") == PROBLEM_MEDIA_TYPE


def _problem_of(held: Message, text: bytes) -> Response:
    status: int = held["status"]
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    said = text[:_MAX_TEXT_BYTES].decode(errors="replace").strip()
    response = problem_response(Problem(status=status, code=code_of(status), title=phrase, detail=said or phrase))
    kept = [(name, value) for name, value in held["headers"] if name.lower() not in _OF_THE_OLD_BODY]
    response.raw_headers.extend(kept)
    return response


class InternalTokenMiddleware:
    """Refuses every request without `Authorization: Bearer <token>`, except health checks and metrics.

    With no token configured (the loopback default) everything passes.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Health and metrics are numbers, no words of any caller: who collects them must not need the token, with which
        # one can render.
        if scope["type"] != "http" or self.token is None or scope["path"] in HEALTH_PATHS:
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            return await self.app(scope, receive, send)
        return await problem_response(Problem(
            status=401, code="unauthorized", title="Internal token required",
            detail="This service answers the gateway only; set STILLMOTION_INTERNAL_TOKEN to the same value on both.",
        ))(scope, receive, send)


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


class ClientGone(Refusal):
    """Nobody reads the answer any more."""

    status, code, title = 499, "client_closed_request", "Nobody waits"

    def __init__(self) -> None:
        super().__init__("The connection was closed; a job that was accepted goes on.")


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of `work`, which is stopped when the client of `request` (whose body was read) hangs up.

    Raises:
        ClientGone: it did.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
