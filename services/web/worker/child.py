"""The worker's side: load the model once, then do one piece of work at a time, or several, each on its own thread.

A thread of its own listens to the HTTP process, so that a cancellation is seen in the middle of work, and so that this
process ends at once when the other one is gone, however it went.
"""

import contextlib
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.errors import Problem
from contracts.refusal import Refusal
from web.calls import working
from web.worker.devices import cuda_memory, used_gpus
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable, WorkCanceled
from web.worker.faults import breaks_the_device, is_out_of_memory, why_not_loaded
from web.worker.link import (
    HEADER_BYTES,
    Cancel,
    Canceled,
    Done,
    Failed,
    Loaded,
    LoadFailed,
    Message,
    Note,
    Outcome,
    Progress,
    Resting,
    Start,
    Work,
    body_length,
    from_body,
    to_parts,
)

log = logging.getLogger(__name__)

EXIT_PARENT_GONE = 0
EXIT_LOAD_FAILED = 3
EXIT_DEVICE_BROKEN = 4


class Report:
    """Progress and cancellation as one callback; used on the thread that works."""

    def __init__(
        self, send: Callable[[Any], None], is_canceled: Callable[[], bool], heard: Callable[[], list[Any]] = list
    ) -> None:
        self._send = send
        self._is_canceled = is_canceled
        self.heard = heard
        """What was said to the work so far."""

    def __call__(self, value: Any) -> None:
        """Tell how far the work is. Raises `WorkCanceled`."""
        self.check()
        self._send(value)

    def check(self) -> None:
        """Raises `WorkCanceled` once nobody waits for the result any more."""
        if self._is_canceled():
            raise WorkCanceled


Handler = Callable[[Any, Report], Any]
"""Does one piece of work and returns its result; blocking. Called from as many threads as work is done at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgram:
    """What a service runs in its worker."""

    open_model: Callable[[Any], tuple[Any, Handler]]
    """From the settings to what the model can do, and what does the work. Raises `ModelUnavailable`."""
    explain: Callable[[Exception], Problem]
    """What an exception of the handler means to the caller."""
    tidy_up: Callable[[], None] = lambda: None
    """Called after each piece of work, when its end has been told: nobody waits for it."""


def run(program: WorkerProgram) -> int:
    """Serve the socket whose descriptor is the last argument of this process; returns the exit status."""
    # The kernel's out-of-memory killer should take this process, which is replaced, before the HTTP process.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    with socket.socket(fileno=int(sys.argv[-1])) as channel:
        try:
            return _serve(_ParentLink(channel), program)
        except OSError:
            return EXIT_PARENT_GONE


@dataclass(slots=True)
class _Wanted:
    """What was said about a piece of work that has not ended."""

    canceled: bool = False
    notes: list[Any] = field(default_factory=list)

    def hear(self, command: Cancel | Note) -> None:
        if isinstance(command, Note):
            self.notes.append(command.value)
        else:
            self.canceled = True


class _ParentLink:
    """The socket to the HTTP process: commands in, through a thread; messages out, from any thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._commands: queue.SimpleQueue[Start | Work] = queue.SimpleQueue()
        self._wanted: dict[int, _Wanted] = {}
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def next_command(self) -> Start | Work:
        """Wait for something to do."""
        return self._commands.get()

    def next_work(self, look_s: float) -> Start | Work:
        """The same; tells the GPUs whenever so long nothing was done. Raises `OSError` if the HTTP process is gone."""
        while True:
            try:
                return self._commands.get(timeout=look_s)
            except queue.Empty:
                if not self._wanted and (gpus := used_gpus()):
                    self.send(Resting(gpus=gpus))

    def heard(self, work_id: int) -> list[Any]:
        """The notes to that work."""
        wanted = self._wanted.get(work_id)
        return [] if wanted is None else list(wanted.notes)

    def is_canceled(self, work_id: int) -> bool:
        """Also of work that has ended."""
        wanted = self._wanted.get(work_id)
        return wanted is None or wanted.canceled

    def send(self, message: Message) -> None:
        """Raises `OSError` if the HTTP process is gone."""
        if isinstance(message, Outcome):
            del self._wanted[message.id]
        parts = to_parts(message)
        with self._sending:
            for part in parts:
                self._channel.sendall(part)

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._channel.makefile("rb") as stream:
            while len(header := stream.read(HEADER_BYTES)) == HEADER_BYTES:
                body = stream.read(length := body_length(header))
                if len(body) < length:
                    break
                command = from_body(body)
                if isinstance(command, Cancel | Note):
                    if wanted := self._wanted.get(command.id):  # else it has ended
                        wanted.hear(command)
                    continue
                if isinstance(command, Work):
                    self._wanted[command.id] = _Wanted()
                self._commands.put(command)
        # Not sys.exit: the main thread may be deep in a step, and nobody is left to whom its result matters.
        os._exit(EXIT_PARENT_GONE)


def _serve(link: _ParentLink, program: WorkerProgram) -> int:
    start = link.next_command()
    assert isinstance(start, Start)
    handler = _load(link, start, program)
    if handler is None:
        return EXIT_LOAD_FAILED

    def work_on(next_work: Callable[[], Start | Work] = link.next_command) -> int:
        while True:
            work = next_work()
            assert isinstance(work, Work)
            if not _do(link, work, handler, program):
                return EXIT_DEVICE_BROKEN
            program.tidy_up()

    for number in range(1, start.at_once):
        threading.Thread(target=lambda: _end(work_on), name=f"work-{number}", daemon=True).start()
    return work_on(lambda: link.next_work(start.look_s))


def _end(work_on: Callable[[], int]) -> None:
    """End the process as the main thread would by returning: what the others do is lost with it."""
    try:
        os._exit(work_on())
    except OSError:
        os._exit(EXIT_PARENT_GONE)


def _load(link: _ParentLink, start: Start, program: WorkerProgram) -> Handler | None:
    started_s = time.monotonic()
    try:
        info, handler = program.open_model(start.settings)
    except Exception as error:  # whatever loading raises is the load's failure
        known = isinstance(error, ModelUnavailable)
        log.error("the model cannot be loaded: %s", error, exc_info=not known)
        link.send(LoadFailed(
            reason=why_not_loaded(error),
            may_pass=not known or isinstance(error, ModelNotYetAvailable) or is_out_of_memory(error.__cause__),
        ))
        return None
    link.send(Loaded(info=info, seconds=round(time.monotonic() - started_s, 3), gpus=used_gpus()))
    return handler


def _do(link: _ParentLink, work: Work, handler: Handler, program: WorkerProgram) -> bool:
    """Do one piece of work and say what became of it; false if this process cannot go on."""
    with working("work", work.call):
        return _do_it(link, work, handler, program)


def _do_it(link: _ParentLink, work: Work, handler: Handler, program: WorkerProgram) -> bool:
    report = Report(
        lambda value: link.send(Progress(id=work.id, value=value)), lambda: link.is_canceled(work.id),
        lambda: link.heard(work.id),
    )
    try:
        result = handler(work.payload, report)
        link.send(Done(id=work.id, result=result, gpu_memory=cuda_memory(), gpus=used_gpus()))
    except WorkCanceled:
        link.send(Canceled(id=work.id))
    except Exception as error:  # the job boundary: whatever the work raises is its own failure
        problem, fatal = program.explain(error), breaks_the_device(error)
        cause = None if isinstance(error, Refusal) else error  # the words of a refusal say all there is to say
        log.error("work failed: %s", problem.detail, extra={"code": problem.code, "fatal": fatal}, exc_info=cause)
        link.send(Failed(id=work.id, problem=problem, fatal=fatal))
        return not fatal
    return True

