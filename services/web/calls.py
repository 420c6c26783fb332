"""What a piece of work is done for (request, job, trace): on every log line and on every call that it makes.

The trace is OpenTelemetry's current span (W3C Trace Context); where none is recorded its ids go on all the same.
"""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"
JOB_ID = "X-Stillmotion-Job"
"""Names the job that an internal call works for; heard by the model services only."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_W3C = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("stillmotion")
_random = random.Random()  # ids are no secrets, and asking the kernel for each is a good part of accepting a job


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The ids of one piece of work, beside its trace."""

    request_id: str
    job_id: str | None = None


_current: ContextVar[Call | None] = ContextVar("stillmotion_call", default=None)


def current_call() -> Call | None:
    """What this task works for."""
    return _current.get()


def current_traceparent() -> str | None:
    """The header that makes whoever is called continue this trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(TRACEPARENT)


def outgoing_headers() -> dict[str, str]:
    """What tells a called service, or `working`, what it works for."""
    call = _current.get()
    if call is None:
        return {}
    headers = {REQUEST_ID: call.request_id} | ({JOB_ID: call.job_id} if call.job_id else {})
    _W3C.inject(headers)
    return headers


def log_fields() -> Mapping[str, str]:
    """The ids for a log line."""
    call = _current.get()
    if call is None:
        return {}
    span = trace.get_current_span().get_span_context()
    named = {"job_id": call.job_id} if call.job_id else {}
    return {
        "request_id": call.request_id, "trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}", **named,
    }


@contextmanager
def working(name: str, headers: Mapping[str, str]) -> Iterator[None]:
    """Let the block, and the tasks that it starts, work for what `headers` say, as a span of their trace."""
    span = _tracer.start_span(name, _W3C.extract(headers))
    with _attached(span if span.is_recording() else _continued(headers), _call(headers, internal=True)):
        yield


@contextmanager
def _attached(span: Span, call: Call) -> Iterator[None]:
    token = _current.set(call)
    try:
        with trace.use_span(span, end_on_exit=True):
            yield
    finally:
        _current.reset(token)


def _call(headers: Mapping[str, str], *, internal: bool) -> Call:
    def given(name: str) -> str | None:
        found = headers.get(name)
        return found if found and _ID.fullmatch(found) else None

    return Call(request_id=given(REQUEST_ID) or f"{_random.getrandbits(96):024x}",
                job_id=given(JOB_ID) if internal else None)


def _continued(headers: Mapping[str, str]) -> Span:
    """A part of the given trace, or of a new one where none (or nothing readable) is given, that nobody records."""
    parent = trace.get_current_span(_W3C.extract(headers)).get_span_context()
    return NonRecordingSpan(SpanContext(
        trace_id=parent.trace_id or _random.getrandbits(128), span_id=_random.getrandbits(64), is_remote=False,
        trace_flags=parent.trace_flags, trace_state=parent.trace_state,
    ))


class CallMiddleware:
    """Takes up the caller's request id and trace, or begins new ones; the request id is on the answer, too.

    `internal` services also hear from the caller which job they work for.
    """

    def __init__(self, app: ASGIApp, internal: bool = False) -> None:
        self.app = app
        self.internal = internal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        call = _call(headers, internal=self.internal)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = call.request_id
            await send(message)

        span = trace.get_current_span()  # FastAPI's, where it records one
        with _attached(span if span.is_recording() else _continued(headers), call):
            return await self.app(scope, receive, send_with_id)
