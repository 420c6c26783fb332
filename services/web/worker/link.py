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
from typing import Any, Self, get_args

from contracts.errors import Problem
from web.worker.errors import WorkerDied

HEADER_BYTES = 8
MAX_MESSAGE_BYTES = 1 << 30
STOP_GRACE_S = 3.0
_KILL_WAIT_S = 10.0
_OOM_HINT = ", as the system does when memory runs out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """First to the worker: load the model that `settings` name, then do up to `at_once` pieces of work at one time."""

    settings: Any
    at_once: int = 1


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
    """The work's result, and the CUDA memory in bytes by kind, by device."""

    id: int
    result: Any
    gpu_memory: dict[str, dict[str, int]] = field(default_factory=dict)


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
Message = Loaded | LoadFailed | Progress | Outcome


def to_frame(message: Any) -> bytes:
    """The message behind its length. Raises what `pickle` raises for a payload that cannot travel."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """Bytes that follow. Raises `ValueError` for what is no header of ours."""
    length = int.from_bytes(header, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return length


def from_body(body: bytes) -> Any:
    """The message again. Raises `ValueError` for bytes that are none."""
    try:
        return pickle.loads(body)  # noqa: S301 - from our own process, over a socket that nobody else holds
    except Exception as error:  # pickle raises anything for broken bytes
        raise ValueError(f"no message: {error!r}") from error


class WorkerProcess:
    """A running worker. Only one coroutine at a time may `receive`, and one that was cancelled may not do so again."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Start `command` with its socket's descriptor as the last argument; raises `OSError` if it cannot start."""
        ours, theirs = socket.socketpair()
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
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        """Queue a command; a dead worker is noticed by `receive`."""
        self._writer.write(to_frame(command))

    async def receive(self) -> Message:
        """The next message. Raises `WorkerDied`."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            message = from_body(await self._reader.readexactly(body_length(header)))
            if not isinstance(message, get_args(Message)):
                raise ValueError(f"a {type(message).__name__}")
        except (asyncio.IncompleteReadError, ConnectionError):
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
        self._writer.close()  # the worker ends itself when its socket does
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
