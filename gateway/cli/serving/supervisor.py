"""Starts the services as child processes, restarts one that dies, and ends them all in bounded time."""

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import httpx

from contracts.models import Health
from gateway.cli.serving.health import POLL_S, OnChange, ask_health, poll
from gateway.cli.serving.logview import LogSink, plain_line
from gateway.cli.serving.stack import ServiceSpec, StackError, refuse_taken_ports
from web.worker.lifeline import die_with_parent

_MAX_LINE_BYTES = 1 << 20
_TAIL_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    start_s: float = 900.0  # a full-size checkpoint from a slow disk
    stop_s: float = 10.0  # between SIGTERM and SIGKILL, for each of the two rounds
    poll_s: float = POLL_S
    first_backoff_s: float = 0.5
    max_backoff_s: float = 10.0
    max_restarts: int = 5  # in a row; a child that stayed up for `steady_s` starts a new row
    steady_s: float = 60.0


@dataclass(slots=True)
class _Child:
    """One supervised service and what is known of its current process."""

    spec: ServiceSpec
    process: asyncio.subprocess.Process | None = None
    pump: asyncio.Task[None] | None = None
    answered: bool = False
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


class Supervisor:
    """Runs a list of services until told to stop; `running_stack` is the way to get one."""

    def __init__(
        self, specs: Sequence[ServiceSpec], environment: Mapping[str, str], sink: LogSink, patience: Patience
    ) -> None:
        self.specs = list(specs)
        self._environment = dict(environment)
        self._sink = sink
        self._patience = patience
        self._children = [_Child(spec) for spec in specs]
        self._hurry = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def wait_ready(self, on_change: OnChange) -> None:
        """Return once every service answers `/readyz` with 200.

        `on_change` gets, whenever it changes, what each service that is not ready lacks.

        Raises:
            StackError: a service cannot start, says that it cannot become ready, or takes longer than the patience.
        """
        waiting = asyncio.create_task(self._poll_ready(on_change))
        limit_s = self._patience.start_s
        try:
            await asyncio.wait([waiting, *self._keepers], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            self._raise_first_failure()
            if not waiting.done():
                raise StackError(f"Not ready after {limit_s:.0f} s; the reasons are above.")
            waiting.result()
        finally:
            waiting.cancel()

    async def until_failure(self) -> None:
        """Watch the children for as long as they can be kept running.

        Raises:
            StackError: one of them died too often to be restarted again.
        """
        await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        self._raise_first_failure()

    def hurry(self) -> None:
        """Skip what is left of the orderly stop: kill."""
        self._hurry.set()

    def start(self) -> None:
        """Begin to run every service."""
        self._keepers = [
            asyncio.create_task(self._keep(child), name=f"keep {child.spec.name}") for child in self._children
        ]

    async def stop(self) -> None:
        """End every process: first the gateway, so that no job sees its services go, then the others."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        fronts = [child for child in self._children if child.spec.name == "gateway"]
        await asyncio.gather(*(self._end(child) for child in fronts))
        await asyncio.gather(*(self._end(child) for child in self._children if child not in fronts))

    def _raise_first_failure(self) -> None:
        for keeper in self._keepers:
            if keeper.done() and not keeper.cancelled():
                keeper.result()

    async def _keep(self, child: _Child) -> None:
        """Run one child for ever; a child that never answered is not tried twice, for it would fail the same way."""
        deaths = 0
        while True:
            began = time.monotonic()
            code = await self._run_once(child)
            deaths = 1 if time.monotonic() - began > self._patience.steady_s else deaths + 1
            if not child.answered:
                raise StackError(f"{child.spec.name} could not start: {_how_it_ended(code)}.{_last_words(child)}")
            if deaths > self._patience.max_restarts:
                raise StackError(
                    f"{child.spec.name} died {deaths} times in a row, the last time: {_how_it_ended(code)}."
                    + _last_words(child)
                )
            pause_s = min(self._patience.first_backoff_s * 2 ** (deaths - 1), self._patience.max_backoff_s)
            self._sink("stillmotion", f"{child.spec.name} died ({_how_it_ended(code)}); restart in {pause_s:g} s")
            await asyncio.sleep(pause_s)

    async def _run_once(self, child: _Child) -> int:
        process = await asyncio.create_subprocess_exec(
            *child.spec.command, env=self._environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=_MAX_LINE_BYTES,
            # A session of its own: Ctrl-C reaches the supervisor alone, which then stops everything in order.
            start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()),
        )
        child.process = process
        child.pump = asyncio.create_task(self._pump(child, process))
        code = await process.wait()  # cancelled by `stop`, which then ends the process itself
        await self._clear_up(child, process)
        return code

    async def _clear_up(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        """Kill what a dead process left behind, for it may hold the port or the device; read its last output."""
        _kill_group(process.pid)
        if child.pump is not None:
            await asyncio.wait([child.pump], timeout=1.0)
            child.pump.cancel()

    async def _pump(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                raw = end.partial
            except asyncio.LimitOverrunError as overrun:
                raw = await process.stdout.read(overrun.consumed)
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            if line:
                child.tail.append(line)
                self._sink(child.spec.name, line)

    async def _end(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            gone = asyncio.create_task(process.wait())
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait([gone, hurry], timeout=self._patience.stop_s, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not gone.done():
                self._sink("stillmotion", f"{child.spec.name} does not stop; killing it")
                _kill_group(process.pid)
                await gone
        await self._clear_up(child, process)

    async def _poll_ready(self, on_change: OnChange) -> None:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:

            async def ask(child: _Child) -> Health | None:
                health = await ask_health(http, child.spec.url)
                child.answered = child.answered or health is not None
                return health

            asks = {child.spec.name: partial(ask, child) for child in self._children}
            await poll(asks, on_change, self._patience.poll_s)


@asynccontextmanager
async def running_stack(
    specs: Sequence[ServiceSpec], environment: Mapping[str, str], sink: LogSink, patience: Patience | None = None
) -> AsyncIterator[Supervisor]:
    """Start the services and end every one of them on the way out, however the body ends.

    Raises:
        StackError: at once when a port is taken.
    """
    refuse_taken_ports(specs)
    supervisor = Supervisor(specs, environment, sink, patience or Patience())
    supervisor.start()
    try:
        yield supervisor
    finally:
        # Shielded: a second Ctrl-C during the stop must not leave processes behind.
        stopping = asyncio.ensure_future(supervisor.stop())
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                supervisor.hurry()


def _kill_group(leader_pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader_pid, signal.SIGKILL)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


def _last_words(child: _Child) -> str:
    if not child.tail:
        return ""
    lines = "\n".join(plain_line(line) for line in child.tail).splitlines()
    return " Its last words:\n" + "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
