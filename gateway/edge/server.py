"""Connections: how many there may be, and how long each may keep this process waiting for its client.

uvicorn bounds neither the time of a request's head nor that of its body, and its `limit_concurrency` answers 503 to
everybody while idle connections are many. Here the idlest one makes room.
"""

import asyncio
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem

_TICKS_PER_LOOK = 2  # uvicorn ticks ten times a second
_GOODBYE_S = 1.0
_NEW_S = 1.0  # a head is there by then
_SHUTDOWN_S = 3  # open event streams never end by themselves; their clients reconnect
_DESCRIPTORS_WANTED = 65_536
_DESCRIPTORS_RESERVED = 256  # databases, services, files that are served


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a client is given, in seconds: for a request's head, for a body beyond the time that it takes at
    `body_bytes_per_s`, and for taking more of an answer."""

    head_s: float = 15.0
    body_s: float = 20.0
    body_bytes_per_s: int = 4096
    answer_s: float = 60.0


class BoundedProtocol(H11Protocol):
    """One connection. Where its client keeps it waiting too long, it is closed; a body gets a 408 first."""

    def __init__(self, *args: Any, max_connections: int, patience: Patience, **more: Any) -> None:
        super().__init__(*args, **more)
        self._max_connections = max_connections
        self._patience = patience
        self._seen: object = None
        self._began = self._looked = self.loop.time()
        self._received = 0
        self._stalled_since: float | None = None
        self._given_up = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # A burst may be twice as many as are kept: a connection whose head is on its way is not closed for it.
        if len(self.connections) > 2 * self._max_connections:
            self._tell(_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        if self._given_up:
            return
        super().data_received(data)
        self._notice_request()
        self._received += len(data)

    def on_response_complete(self) -> None:
        self._began = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    @property
    def is_open(self) -> bool:
        """Whether requests are still taken on it."""
        return not self._given_up and not self.transport.is_closing()

    @property
    def waits_for_head(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether it is for the client to send something, and not for this process to read it."""
        if self.waits_for_head:
            return True
        return self.cycle.more_body and not self.flow.read_paused and not self.cycle.waiting_for_100_continue

    @property
    def paid_until(self) -> float:
        """The time until which the client has earned its place by what it sent."""
        if self.waits_for_head:
            return self._began
        return self._began + self._received / self._patience.body_bytes_per_s

    def may_make_room(self, now: float) -> bool:
        """Whether it may be closed for another: nothing is served on it, its body takes a while already, or nobody
        takes its answer."""
        if self._stalled_since is not None:
            return now - self._stalled_since > self._patience.answer_s / 12
        age = now - self._began
        return age > _NEW_S if self.waits_for_head else self.waits_for_client and age > self._patience.body_s / 4

    @property
    def worth(self) -> tuple[bool, float]:
        """The least is closed first. One that was served may be used again at this very moment: it comes last."""
        return self.cycle is not None and self.waits_for_head, self.paid_until

    def look(self, now: float) -> None:
        """Close the connection if its client has had all the time there is for it."""
        self._notice_request()
        if not self.waits_for_client:
            self._began += now - self._looked  # the clock of a body stands while this process does not read it
        self._looked = now
        given_s = self._patience.head_s if self.waits_for_head else self._patience.body_s
        if not self.is_open:
            return
        if self._stalled_since is not None and now - self._stalled_since > self._patience.answer_s:
            self.transport.abort()
        elif self.waits_for_client and now - self.paid_until > given_s:
            self.give_up()

    def give_up(self) -> None:
        """Close, with a 408 where something of a request has arrived and nothing of its answer was sent."""
        if self._given_up:
            return
        self._given_up = True
        if self._stalled_since is not None:  # what was not taken would be waited for
            self.transport.abort()
            return
        told = bool(self.conn.trailing_data[0]) if self.waits_for_head else not self.cycle.response_started
        if not self.waits_for_head:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if told:
            self._tell(_TOO_SLOW)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        super().shutdown()
        if not self.waits_for_head and self.waits_for_client:  # cancelled, it would be an error in the log
            self.loop.call_later(_SHUTDOWN_S / 3, self.give_up)

    def _tell(self, answer: bytes) -> None:
        """Send a last answer. Closed at once, what the client still sends would destroy it on its way."""
        self._given_up = True
        self.transport.write(answer)
        self.transport.write_eof()
        self.loop.call_later(_GOODBYE_S, self.transport.close)

    def _notice_request(self) -> None:
        if self.cycle is not self._seen:
            self._seen = self.cycle
            self._began = self.loop.time()
            self._received = 0


def make_room(connections: Iterable[object], wanted: int, now: float) -> None:
    """Close the idlest connections, as far as there are more than `wanted`."""
    opened = [connection for connection in _bounded(connections) if connection.is_open]
    if len(opened) > wanted:
        idle = sorted((other for other in opened if other.may_make_room(now)), key=lambda other: other.worth)
        for other in idle[: len(opened) - wanted]:
            other.give_up()


def _bounded(connections: Iterable[object]) -> list[BoundedProtocol]:
    return [connection for connection in connections if isinstance(connection, BoundedProtocol)]


class BoundedServer(uvicorn.Server):
    """uvicorn's server, which looks after its connections five times a second."""

    def __init__(self, config: uvicorn.Config, max_connections: int) -> None:
        super().__init__(config)
        self.max_connections = max_connections

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_LOOK == 0:
            now = asyncio.get_running_loop().time()
            for connection in _bounded(self.server_state.connections):
                connection.look(now)
            make_room(self.server_state.connections, self.max_connections, now)
        return await super().on_tick(counter)


def make_server(
    app: ASGIApp, *, host: str, port: int, max_connections: int, patience: Patience | None = None
) -> BoundedServer:
    """A server for `app` that has at most so many connections."""
    protocol: Any = partial(BoundedProtocol, max_connections=max_connections, patience=patience or Patience())
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, timeout_graceful_shutdown=_SHUTDOWN_S, server_header=False,
        http=protocol, ws="none", loop="asyncio",  # whatever else is installed
    )
    return BoundedServer(config, max_connections)


def raise_descriptor_limit() -> int:
    """Raise the soft limit as far as the hard one allows, and 65,536 at most; returns what is allowed then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _DESCRIPTORS_WANTED
    allowed = _DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_WANTED)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)


def connections_within(descriptors: int, wanted: int) -> int:
    """How many connections may be open where each may also have a file for what it sends."""
    return max(8, min(wanted, (descriptors - _DESCRIPTORS_RESERVED) // 2))


def _answer(phrase: str, problem: Problem) -> bytes:
    """A whole answer, for connections on which no request can be served any more."""
    body = problem.model_dump_json(exclude_none=True).encode()
    wait = "" if problem.retry_after_s is None else f"Retry-After: {problem.retry_after_s}\r\n"
    head = (
        f"HTTP/1.1 {problem.status} {phrase}\r\nContent-Type: {PROBLEM_MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        f"{wait}Connection: close\r\n\r\n"
    )
    return head.encode() + body


_TOO_SLOW = _answer("Request Timeout", Problem(
    status=408, code="request_too_slow", title="The request came too slowly",
    detail="The request did not arrive in time: send it again over a faster connection, or a smaller picture.",
))
_TOO_MANY = _answer("Service Unavailable", Problem(
    status=503, code="too_many_connections", title="Too many connections", retry_after_s=5,
    detail="All connections of this server are in use: try again in 5 s.",
))
