"""What the HTTP process and its worker say to each other over a socket pair, and one life of the worker seen from here.

Pickled, since both ends are this program and nobody else holds the socket: images travel as bytes, dataclasses as
they are. A service types the payloads; nothing here looks into them.
"""

import asyncio
import pickle
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, cast, get_args

from contracts.errors import Problem
from contracts.models import DeviceInfo
from web.worker.errors import WorkerDied

HEADER_BYTES = 8
MAX_MESSAGE_BYTES = 1 << 30
Buffer = bytes | bytearray
STOP_GRACE_S = 3.0
_SOCKET_BYTES = 4 << 20
_KILL_WAIT_S = 10.0
_OOM_HINT = ", as the system does when memory runs out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """First to the worker: load the model that `settings` name, then do up to `at_once` pieces of work at one time."""

    settings: Any
    at_once: int = 1
    look_s: float = 30.0
    """With nothing to do for so long, it says how its GPUs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work, and the ids under which it is logged and traced."""

    id: int
    payload: Any
    call: dict[str, str] = field(default_factory=dict)
    """As `web.calls.outgoing_headers` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop that work at its next report."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The model is in memory; work is welcome. `info` says what it can do."""

    info: Any
    seconds: float
    gpus: list[DeviceInfo] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed:
    """The model cannot be loaded; the worker ends after saying so."""

    reason: str
    may_pass: bool
    """The next attempt may succeed with nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One report of the running work."""

    id: int
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The work's result, the CUDA memory in bytes by kind, by device, and the GPUs that are computed on."""

    id: int
    result: Any
    gpu_memory: dict[str, dict[str, int]] = field(default_factory=dict)
    gpus: list[DeviceInfo] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """There is nothing to do, and so are the GPUs."""

    gpus: list[DeviceInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The work failed; `fatal` says that the process cannot go on."""

    id: int
    problem: Problem
    fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled:
    """The work stopped because it was asked to."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something said to the work that runs: it hears it at its next look."""

    id: int
    value: Any


Command = Start | Work | Cancel | Note
Outcome = Done | Failed | Canceled
Message = Loaded | LoadFailed | Progress | Resting | Outcome


def to_parts(message: Any) -> tuple[bytes, bytes]:
    """Its length, and the message. Raises what `pickle` raises for a payload that cannot travel."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER_BYTES, "big"), body


def to_frame(message: Any) -> bytes:
    """The same in one piece, which megabytes are copied for."""
    return b"".join(to_parts(message))


def body_length(header: Buffer) -> int:
    """Bytes that follow. Raises `ValueError` for what is no header of ours."""
    length = int.from_bytes(header, "big")
    if not 0 < length <= MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return length


def from_body(body: Buffer) -> Any:
    """The message again. Raises `ValueError` for bytes that are none."""
    try:
        return pickle.loads(body)  # noqa: S301 - from our own process, over a socket that nobody else holds
    except Exception as error:  # pickle raises anything for broken bytes
        raise ValueError(f"no message: {error!r}") from error


class _Incoming(asyncio.BufferedProtocol):
    """Whole messages as they come, each read straight into memory of its size.

    asyncio's streams copy megabytes three times on their way: 11 ms of CPU for 4.9 MB of features, and 7 so.
    """

    def __init__(self) -> None:
        self._bodies: asyncio.Queue[bytearray | ValueError | None] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None
        self._expect(HEADER_BYTES, is_header=True)

    async def body(self) -> bytearray:
        """The next one. Raises `ValueError` for what is none of ours, `EOFError` once the stream has ended."""
        body = await self._bodies.get()
        if isinstance(body, bytearray):
            return body
        self._bodies.put_nowait(body)  # nothing comes after it
        raise EOFError if body is None else body

    def _expect(self, length: int, *, is_header: bool) -> None:
        self._buffer, self._filled, self._is_header = bytearray(length), 0, is_header

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._buffer):
            return
        if not self._is_header:
            self._bodies.put_nowait(self._buffer)
            self._expect(HEADER_BYTES, is_header=True)
            return
        try:
            self._expect(body_length(self._buffer), is_header=False)
        except ValueError as error:
            self._bodies.put_nowait(error)
            assert self._transport is not None
            self._transport.pause_reading()
            self._expect(HEADER_BYTES, is_header=True)

    def eof_received(self) -> bool:
        self._bodies.put_nowait(None)
        return True  # whoever owns the process closes it

    def connection_lost(self, exc: Exception | None) -> None:
        self._bodies.put_nowait(None)


class WorkerProcess:
    """A running worker. Only one coroutine at a time may `receive`, and one that was cancelled may not do so again."""

    def __init__(
        self, process: asyncio.subprocess.Process, incoming: _Incoming, outgoing: asyncio.WriteTransport
    ) -> None:
        self._process = process
        self._incoming = incoming
        self._outgoing = outgoing

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Start `command` with its socket's descriptor as the last argument; raises `OSError` if it cannot start."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)  # or as much as the system allows
        with theirs:  # closed here once the child has it, so that its death is the end of our stream
            try:
                # A session of its own: Ctrl-C in a terminal reaches the HTTP process alone, which ends this one.
                process = await asyncio.create_subprocess_exec(
                    *command, str(theirs.fileno()), stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        outgoing, incoming = await asyncio.get_running_loop().create_connection(_Incoming, sock=ours)
        return cls(process, incoming, outgoing)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        """Queue a command; a dead worker is noticed by `receive`."""
        for part in to_parts(command):
            self._outgoing.write(part)

    async def receive(self) -> Message:
        """The next message. Raises `WorkerDied`."""
        try:
            message = from_body(await self._incoming.body())
            if not isinstance(message, get_args(Message)):
                raise ValueError(f"a {type(message).__name__}")
        except EOFError:
            raise WorkerDied(await self._cause_of_death()) from None
        except ValueError as error:
            self.kill()
            raise WorkerDied(f"It sent what cannot be read: {error}") from error
        return message

    def kill(self) -> None:
        """SIGKILL; `receive` then raises."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """End the process in bounded time and close the socket; nothing of it is left."""
        self._outgoing.close()  # the worker ends itself when its socket does
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_WAIT_S):
                    await self._process.wait()

    async def _cause_of_death(self) -> str:
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                status = await self._process.wait()
        except TimeoutError:
            self.kill()
            return "It closed its connection and did not end."
        if status >= 0:
            return f"It ended with exit status {status}."
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"It was killed by {name}" + (_OOM_HINT if -status == signal.SIGKILL else ".")
