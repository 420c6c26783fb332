"""A model service over HTTP, whichever it is: every call has a deadline and is one attempt."""

import asyncio
import base64
import functools
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel, ValidationError

from contracts.errors import Problem
from contracts.models import Health
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
SHORT_TIMEOUT_S = 5.0
_REFUSES_US = ("refuses this gateway's internal token: set STILLMOTION_INTERNAL_TOKEN to the same value on the gateway "
               "and on the service, and restart both")


class _ModelId(BaseModel):
    id: str
    state: str = "loaded"  # of a service that has but one
    at_once: int | None = None


class _ModelIds(BaseModel):
    """Of a list of models, of either kind, what they are called."""

    data: list[_ModelId]


class ServiceClient:
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
            async with asyncio.timeout(SHORT_TIMEOUT_S):
                response = await self._http.get("/readyz", timeout=SHORT_TIMEOUT_S)
            health = Health.model_validate_json(response.content, extra="ignore")
            if not health.ready:
                return Probe(health=health, answered=True)
            # `/readyz` is open to everybody: whether our token is the right one, only another call tells.
            models = await self._send("GET", "/v1/models", _ModelIds, timeout_s=SHORT_TIMEOUT_S)
            return Probe(
                health=health, answered=True, models=frozenset(model.id for model in models.data),
                loaded=frozenset(model.id for model in models.data if model.state == "loaded"),
                at_once=max((model.at_once for model in models.data if model.at_once is not None), default=None),
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
        timeout = httpx.Timeout(SHORT_TIMEOUT_S, read=read_s)
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
        kind = kind_of(response.status_code)
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


def connect(
    base_url: str, *, token: str | None, connect_timeout_s: float, host: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """A connection pool to one service; every request carries the internal token and what it works for.

    `host` is what requests name where `base_url` has the address that a name led to.
    """

    async def mark(request: httpx.Request) -> None:
        request.headers.update(outgoing_headers())

    http = httpx.AsyncClient(
        base_url=base_url,
        headers=({"Authorization": f"Bearer {token}"} if token else {}) | ({"Host": host} if host else {}),
        timeout=httpx.Timeout(SHORT_TIMEOUT_S, connect=connect_timeout_s), transport=transport,
        limits=httpx.Limits(max_connections=100), event_hooks={"request": [mark]}, trust_env=False, verify=_tls(),
    )
    record_calls(http)
    return http


@functools.cache
def _tls() -> ssl.SSLContext:
    """Of all clients: reading the authorities takes 30 ms for each."""
    return httpx.create_ssl_context(trust_env=False)


def kind_of(status: int) -> Kind:
    """What an answer of this status that is no success says."""
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
