"""The two model services over HTTP: every call has a deadline and is one attempt."""

import asyncio
import base64
import functools
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import BaseModel, ValidationError

from contracts.chat import ChatEnd, ChatEvent, ChatRequest
from contracts.describe import DescribeRequest, DescribeResponse
from contracts.errors import Problem
from contracts.models import AbsentModel, Health, VideoModelInfo, VideoModelList, VLModelInfo, VLModelList
from contracts.videos import TERMINAL_RENDER_STATES, RenderFile, RenderStatus, VideoRequest
from contracts.wire import REQUEST_PART, ImageRequest
from gateway.services.errors import Kind, ServiceError, ServiceName
from gateway.services.pool import Probe
from web.calls import outgoing_headers
from web.telemetry import record_calls

Body = TypeVar("Body", bound=BaseModel)
_KINDS: Mapping[int, Kind] = {
    408: "unavailable", 502: "unavailable", 503: "unavailable", 504: "unavailable",
    401: "misconfigured", 403: "misconfigured", 404: "not_found", 409: "conflict", 429: "busy",
}
_SHORT_TIMEOUT_S = 5.0
_READ_SILENCE_S = 45.0  # the services send a heartbeat more often than this
_LOOK_AGAIN_S = 0.3  # after a stream that ended before its render
_REFUSES_US = ("refuses this gateway's internal token: set STILLMOTION_INTERNAL_TOKEN to the same value on the gateway "
               "and on the service, and restart both")


class _ModelId(BaseModel):
    id: str
    state: str = "loaded"  # of a service that has but one


class _ModelIds(BaseModel):
    """Of a list of models, of either kind, what they are called."""

    data: list[_ModelId]


class _ServiceClient:
    """What both services have in common: models, readiness, and how their answers are read."""

    def __init__(self, service: ServiceName, http: httpx.AsyncClient) -> None:
        self.service: ServiceName = service
        self._http = http

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def probe(self) -> Probe:
        """What `/readyz` says, and whether it takes calls from us; one that cannot be reached is not ready."""
        try:
            async with asyncio.timeout(_SHORT_TIMEOUT_S):
                response = await self._http.get("/readyz", timeout=_SHORT_TIMEOUT_S)
            health = Health.model_validate_json(response.content, extra="ignore")
            if not health.ready:
                return Probe(health=health, answered=True)
            # `/readyz` is open to everybody: whether our token is the right one, only another call tells.
            models = await self._send("GET", "/v1/models", _ModelIds, timeout_s=_SHORT_TIMEOUT_S)
            return Probe(
                health=health, answered=True, models=frozenset(model.id for model in models.data),
                loaded=frozenset(model.id for model in models.data if model.state == "loaded"),
            )
        except ServiceError as error:
            stuck = error.kind == "misconfigured"
            health = Health(ready=False, stuck=stuck, reasons=[error.said])
            return Probe(health=health, answered=error.heard == "answered")
        except (httpx.HTTPError, TimeoutError) as error:
            reason, answered = f"cannot be reached at {self._http.base_url} ({_name(error)})", False
        except ValidationError:
            reason, answered = "gave no readable answer to /readyz", True
        return Probe(health=Health(ready=False, reasons=[reason]), answered=answered)

    async def _send(
        self, method: str, path: str, answer: type[Body], *, timeout_s: float, asked: ImageRequest | None = None
    ) -> Body:
        """Either side may be the newer one: what is unknown in an answer is ignored."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.request(method, path, timeout=timeout_s, **multipart(asked))
                if asked is not None and asked.images() and _knows_no_parts(response):
                    response = await self._http.request(method, path, timeout=timeout_s, **_one_json(asked))
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unreachable(error) from error
        self._check(response)
        try:
            return answer.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise ServiceError(self.service, "failed", f"answered {method} {path} unreadably: {error}") from error

    @asynccontextmanager
    async def _streamed(self, method: str, path: str, *, read_s: float, **sent: Any) -> AsyncIterator[httpx.Response]:
        """An answer to be read piece by piece, each within `read_s`."""
        timeout = httpx.Timeout(_SHORT_TIMEOUT_S, read=read_s)
        try:
            async with self._http.stream(method, path, timeout=timeout, **sent) as response:
                if not response.is_success:
                    await response.aread()
                    self._check(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def _events(
        self, method: str, path: str, *, read_s: float, asked: ImageRequest | None = None
    ) -> AsyncIterator[EventSource]:
        sent = multipart(asked)
        headers = {"Accept": "text/event-stream", **sent.pop("headers", {})}
        async with self._streamed(method, path, read_s=read_s, headers=headers, **sent) as response:
            yield EventSource(response)

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        kind = _kind_of(response.status_code)
        if kind == "misconfigured":
            raise ServiceError(self.service, kind, _REFUSES_US)
        problem = _read_problem(response)
        detail = problem.detail if problem else f"answered with status {response.status_code}"
        raise ServiceError(self.service, kind, detail, reported=problem, wait_s=_retry_after(response))

    def _unreachable(self, error: Exception) -> ServiceError:
        never = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return ServiceError(
            self.service, "unavailable", f"cannot be reached at {self._http.base_url} ({_name(error)})",
            heard="never" if never else "unknown",
        )


def multipart(asked: ImageRequest | None) -> dict[str, Any]:
    """What httpx is to send: JSON alone, or with images multipart."""
    if asked is None:
        return {}
    words, images = asked.words_json(), asked.images()
    if not images:
        return {"content": words, "headers": {"Content-Type": "application/json"}}
    parts = {name: (name, data, _media_type(data)) for name, data in images.items()}
    return {"files": {REQUEST_PART: (None, words, "application/json"), **parts}}


def _one_json(asked: ImageRequest) -> dict[str, Any]:
    """As services took it that knew no parts: the images as base64 in the JSON."""
    images = {name: base64.b64encode(data).decode("ascii") for name, data in asked.images().items()}
    return {"json": json.loads(asked.words_json()) | images}


def _knows_no_parts(response: httpx.Response) -> bool:
    """Whether an earlier version's service could make nothing of the body as a whole."""
    if response.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
        return False
    problem = _read_problem(response)
    return problem is not None and [field.field for field in problem.errors or []] == ["body"]


def _media_type(image: bytes) -> str:
    if image[4:8] == b"ftyp":
        return "video/mp4"
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


class VLClient(_ServiceClient):
    """The vision-language service at one address."""

    def __init__(self, http: httpx.AsyncClient, *, describe_timeout_s: float) -> None:
        super().__init__("vl_service", http)
        self._describe_timeout_s = describe_timeout_s

    async def models(self) -> list[VLModelInfo]:
        """What it runs; one attempt."""
        return (await self._send("GET", "/v1/models", VLModelList, timeout_s=_SHORT_TIMEOUT_S)).data

    async def describe(self, request: DescribeRequest) -> DescribeResponse:
        """Answer the tasks; one attempt."""
        return await self._send(
            "POST", "/v1/describe", DescribeResponse, timeout_s=self._describe_timeout_s, asked=request)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[str | ChatEnd]:
        """Pieces of the reply as they are written, then its end; one attempt. Closed early, the model stops."""
        try:
            async with self._events("POST", "/v1/chat", read_s=self._describe_timeout_s, asked=request) as events:
                async for event in events.aiter_sse():
                    told = ChatEvent.model_validate_json(event.data, extra="ignore")
                    if told.error is not None:
                        raise ServiceError(
                            self.service, _kind_of(told.error.status), told.error.detail, reported=told.error,
                            wait_s=told.error.retry_after_s)
                    if told.text:
                        yield told.text
                    if told.end is not None:
                        yield told.end
                        return
        except (SSEError, ValidationError) as error:
            raise ServiceError(self.service, "failed", f"answered POST /v1/chat unreadably: {error}") from error
        raise ServiceError(self.service, "unavailable", "broke off in the middle of a reply")


class VideoClient(_ServiceClient):
    """The video service at one address."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__("video_service", http)

    async def models(self) -> list[VideoModelInfo | AbsentModel]:
        """What it runs, its default first, and what it lacks; one attempt."""
        models = await self._send("GET", "/v1/models", VideoModelList, timeout_s=_SHORT_TIMEOUT_S)
        return [*models.data, *models.absent]

    async def put(self, render_id: str, request: VideoRequest) -> RenderStatus:
        """Start the render of this id, attach to it, or find it finished; one attempt."""
        return await self._send("PUT", f"/v1/videos/{render_id}", RenderStatus, timeout_s=60.0, asked=request)

    async def status(self, render_id: str) -> RenderStatus:
        """Where the render stands; one attempt."""
        return await self._send("GET", f"/v1/videos/{render_id}", RenderStatus, timeout_s=_SHORT_TIMEOUT_S)

    async def watch(self, render_id: str) -> AsyncGenerator[RenderStatus]:
        """Every status until the terminal one, over streams that break off while the service answers.

        Raises:
            ServiceError: `unavailable` where it does not, `not_found` when it no longer knows the render.
        """
        while True:
            try:
                async with self._events("GET", f"/v1/videos/{render_id}/events", read_s=_READ_SILENCE_S) as events:
                    async for event in events.aiter_sse():
                        status = _status_in(event.data)
                        if status is not None:
                            yield status
                            if status.state in TERMINAL_RENDER_STATES:
                                return
            except (SSEError, ServiceError):
                pass  # whatever broke the stream, the status below tells whether the service still answers
            status = await self.status(render_id)
            yield status
            if status.state in TERMINAL_RENDER_STATES:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def content(self, render_id: str, variant: RenderFile = "video") -> AsyncGenerator[bytes]:
        """The MP4 of a completed render, or a JPEG with it, in pieces. One attempt: the caller starts its file anew."""
        path = f"/v1/videos/{render_id}/content"
        async with self._streamed("GET", path, read_s=_READ_SILENCE_S, params={"variant": variant}) as response:
            async for chunk in response.aiter_bytes():
                yield chunk

    async def delete(self, render_id: str) -> bool:
        """Stop a queued or running render, or remove an ended one; true once nothing of it is there. One attempt."""
        try:
            async with asyncio.timeout(_SHORT_TIMEOUT_S):
                response = await self._http.delete(f"/v1/videos/{render_id}", timeout=_SHORT_TIMEOUT_S)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if response.status_code != httpx.codes.NOT_FOUND:
            self._check(response)
        return response.status_code in (httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND)


def connect(
    base_url: str, *, token: str | None, connect_timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A connection pool to one service; every request carries the internal token and what it works for."""

    async def mark(request: httpx.Request) -> None:
        request.headers.update(outgoing_headers())

    http = httpx.AsyncClient(
        base_url=base_url, headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx.Timeout(_SHORT_TIMEOUT_S, connect=connect_timeout_s), transport=transport,
        limits=httpx.Limits(max_connections=100), event_hooks={"request": [mark]}, trust_env=False, verify=_tls(),
    )
    record_calls(http)
    return http


@functools.cache
def _tls() -> ssl.SSLContext:
    """Of all clients: reading the authorities takes 30 ms for each."""
    return httpx.create_ssl_context(trust_env=False)


def _status_in(data: str) -> RenderStatus | None:
    try:
        return RenderStatus.model_validate_json(data, extra="ignore")
    except ValidationError:
        return None


def _kind_of(status: int) -> Kind:
    return _KINDS.get(status, "refused" if status < 500 else "failed")


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _read_problem(response: httpx.Response) -> Problem | None:
    try:
        return Problem.model_validate_json(response.content, extra="ignore")
    except (ValidationError, httpx.ResponseNotRead):
        return None


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
