"""What a piece of work is done for (request, job, trace): on every log line and on every call that it makes."""

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"
JOB_ID = "X-Stillmotion-Job"
"""Names the job that an internal call works for; heard by the model services only."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context: versions after 00 may append fields; version ff and ids of zeros alone are not valid.
_IDS = r"(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
_TRACEPARENT = re.compile(rf"00-{_IDS}")
_LATER_TRACEPARENT = re.compile(rf"(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-.*)?")


_random = random.Random()  # ids are no secrets, and asking the kernel for each is a good part of accepting a job


def _random_hex(num_bytes: int) -> str:
    return _random.randbytes(num_bytes).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The ids of one piece of work; `span_id` is this process's own part of the trace."""

    request_id: str
    trace_id: str
    span_id: str
    trace_flags: str
    job_id: str | None = None

    @classmethod
    def begun(cls, *, request_id: str | None = None, traceparent: str | None = None, job_id: str | None = None) -> Self:
        """A new part of the given trace, or of a new one where none (or nothing readable) is given."""
        given = (traceparent or "").strip()
        parent = _TRACEPARENT.fullmatch(given) or _LATER_TRACEPARENT.fullmatch(given)
        return cls(
            request_id=request_id if request_id and _ID.fullmatch(request_id) else _random_hex(12),
            trace_id=parent[1] if parent else _random_hex(16), span_id=_random_hex(8),
            trace_flags=parent[3] if parent else "00",  # not sampled: nobody asked for it to be recorded
            job_id=job_id if job_id and _ID.fullmatch(job_id) else None,
        )

    @property
    def traceparent(self) -> str:
        """The header that makes the called service continue this trace."""
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags}"


_current: ContextVar[Call | None] = ContextVar("stillmotion_call", default=None)


def current_call() -> Call | None:
    """What this task works for."""
    return _current.get()


def work_on(call: Call) -> None:
    """Let this task, and those that it starts, work for `call`."""
    _current.set(call)


def outgoing_headers() -> dict[str, str]:
    """The headers that tell a called service what it works for."""
    call = _current.get()
    if call is None:
        return {}
    named = {JOB_ID: call.job_id} if call.job_id else {}
    return {REQUEST_ID: call.request_id, TRACEPARENT: call.traceparent, **named}


def log_fields() -> Mapping[str, str]:
    """The ids for a log line."""
    call = _current.get()
    if call is None:
        return {}
    named = {"job_id": call.job_id} if call.job_id else {}
    return {"request_id": call.request_id, "trace_id": call.trace_id, "span_id": call.span_id, **named}


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
        call = Call.begun(
            request_id=headers.get(REQUEST_ID), traceparent=headers.get(TRACEPARENT),
            job_id=headers.get(JOB_ID) if self.internal else None,
        )
        work_on(call)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = call.request_id
            await send(message)

        return await self.app(scope, receive, send_with_id)
