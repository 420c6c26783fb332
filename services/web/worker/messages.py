"""What the HTTP process and its worker say to each other over a socket pair.

Pickled, since both ends are this program and nobody else holds the socket: images travel as bytes, dataclasses as
they are. A service types the payloads; nothing here looks into them.
"""

import pickle
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import Problem

HEADER_BYTES = 8
MAX_MESSAGE_BYTES = 1 << 30


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


def to_frame(message: Command | Message) -> bytes:
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
