"""Keeps one worker process alive, and gives it as many pieces of work at a time as it takes."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from contracts.models import DeviceInfo
from web.calls import outgoing_headers
from web.worker.errors import NotLoaded, NotReady, StopReason, WorkerDied, WorkFailed, WorkStopped
from web.worker.faults import end_process_if_it_crashes
from web.worker.link import (
    Cancel,
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
    WorkerProcess,
)

log = logging.getLogger(__name__)

Info = TypeVar("Info")
MAX_FAILURES = 3
"""Failed starts, or deaths with no work done between them, after which the service is stuck; starting goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take. Seconds."""

    load_timeout_s: float = 3600.0
    cancel_grace_s: float = 60.0
    """What canceled work has to stop by itself; then its worker is killed."""
    look_s: float = 30.0  # after which a worker with nothing to do says how its GPUs are
    first_backoff_s: float = 1.0
    max_backoff_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A piece of work that the worker does now."""

    id: int
    on_progress: Callable[[Any], None]
    outcome: asyncio.Future[Outcome]


class Supervisor(Generic[Info]):
    """Runs workers of `command`, one after another, from `start` to `stop`. Used on one event loop.

    `settings` go to each worker, which does up to `at_once` pieces of work at one time; `name` is the model's in words.
    """

    def __init__(
        self, command: Sequence[str], settings: Any, *, name: str, at_once: int = 1, patience: Patience | None = None,
        on_gpu_memory: Callable[[Mapping[str, Mapping[str, int]]], None] = lambda _: None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self._name = name
        self._patience = patience or Patience()
        self._start = Start(settings=settings, at_once=at_once, look_s=self._patience.look_s)
        self._on_gpu_memory = on_gpu_memory
        self._on_loss = on_loss
        self._turns = asyncio.Semaphore(at_once)
        self._ids = itertools.count(1)
        self._running: asyncio.Task[None] | None = None
        self._worker: WorkerProcess | None = None
        self._tasks: dict[int, _Task] = {}
        self._is_ready = asyncio.Event()
        self._failed_starts = self._deaths = 0
        self._refused = self._loaded = self._killed_on_request = False
        self.info: Info | None = None
        """What the model can do; known once a worker has loaded it, and kept while that one is replaced."""
        self.gpus: Sequence[DeviceInfo] = ()
        """That it computes on, as the worker last saw them; kept likewise."""
        self.not_ready: str | None = f"{name} is loading."
        """Why no work can be done now; None while a worker with the model lives."""

    def start(self) -> None:
        """Begin; loading goes on in the background."""
        self._running = asyncio.create_task(self._run(), name="supervisor")
        end_process_if_it_crashes(self._running)

    async def stop(self) -> None:
        """End the worker in bounded time; work under way raises `WorkerDied`."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def ready(self) -> None:
        """Wait until a worker can take work."""
        await self._is_ready.wait()

    @property
    def is_stuck(self) -> bool:
        """Whether waiting is in vain as far as anybody can tell: the model is unusable, or workers failed again and
        again. Starting goes on all the same: files may appear, a device may come back."""
        failed = max(self._failed_starts, self._deaths) >= MAX_FAILURES
        return self.not_ready is not None and (self._refused or failed)

    @property
    def backoff_s(self) -> float:
        """Seconds to the next start: none after one death, doubling with each more and while starting itself fails."""
        failures = max(self._failed_starts, self._deaths - 1)
        if failures <= 0:
            return 0.0
        return min(self._patience.max_backoff_s, self._patience.first_backoff_s * 2.0 ** min(failures - 1, 30))

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    def require_ready(self) -> None:
        """Raises `NotReady` while no worker can take work."""
        if self.not_ready is not None:
            raise NotReady(self.not_ready, max(1, round(self.backoff_s)))

    async def do(
        self, payload: Any, *, on_progress: Callable[[Any], None] = lambda _: None, stop: asyncio.Event | None = None,
        timeout_s: float | None = None, notes: "asyncio.Queue[Any] | None" = None,
    ) -> Any:
        """Let the worker do `payload` in its turn and return the result.

        `stop` asks for its end; so does the cancellation of the caller. Both are seen in the middle of the work, as
        are `notes`, each of which is said to it.

        Raises:
            NotReady: there is no worker (any more); nothing was begun.
            WorkFailed: the work raised.
            WorkStopped: it was canceled, or took longer than `timeout_s`.
            WorkerDied: the worker died in it.
        """
        stopped = stop or asyncio.Event()
        doing = asyncio.create_task(self._do(payload, on_progress, stopped, timeout_s, notes or asyncio.Queue()))
        doing.add_done_callback(_see)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            stopped.set()  # the turn is over when the worker is free, not when the caller stops waiting for it
            raise

    async def _do(
        self, payload: Any, on_progress: Callable[[Any], None], stop: asyncio.Event, timeout_s: float | None,
        notes: "asyncio.Queue[Any]",
    ) -> Any:
        async with self._turns:
            if stop.is_set():
                raise WorkStopped("canceled")
            self.require_ready()
            assert self._worker is not None
            task = _Task(
                id=next(self._ids), on_progress=on_progress, outcome=asyncio.get_running_loop().create_future())
            self._tasks[task.id] = task
            self._worker.send(Work(id=task.id, payload=payload, call=outgoing_headers()))
            saying = asyncio.create_task(_say(notes, self._worker, task.id))
            try:
                stopped_for = await self._stop_when_due(self._worker, task, stop, timeout_s)
                return await self._result(task, stopped_for)
            finally:
                saying.cancel()
                del self._tasks[task.id]

    async def _stop_when_due(
        self, worker: WorkerProcess, task: _Task, stop: asyncio.Event, timeout_s: float | None
    ) -> StopReason | None:
        """Return once the work has ended: by itself (None), or stopped by request, then by force."""
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({task.outcome, asked}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if task.outcome.done():
            return None
        reason: StopReason = "canceled" if stop.is_set() else "deadline"
        worker.send(Cancel(id=task.id))
        await asyncio.wait({task.outcome}, timeout=self._patience.cancel_grace_s)
        if not task.outcome.done():  # a step that long, or a worker that hangs
            self._killed_on_request = reason == "canceled"  # a death that says nothing of the worker
            worker.kill()
            await asyncio.wait({task.outcome})  # bounded: the end of its socket follows its death
        return reason

    async def _result(self, task: _Task, stopped_for: StopReason | None) -> Any:
        try:
            outcome = await task.outcome
        except WorkerDied:
            if stopped_for is not None:
                raise WorkStopped(stopped_for) from None
            raise
        if isinstance(outcome, Done):  # also when it was faster than the wish to stop it
            return outcome.result
        if isinstance(outcome, Failed):
            raise WorkFailed(outcome.problem)
        raise WorkStopped(stopped_for or "canceled")

    async def _run(self) -> None:
        """Start a worker, let it work until it dies, start the next; until cancelled."""
        while True:
            self._loaded = self._killed_on_request = False
            try:
                worker = await WorkerProcess.start(self._command)
            except OSError as error:
                self._note_loss(WorkerDied(f"It cannot be started: {error}"))
            else:
                await self._live(worker)
            await asyncio.sleep(self.backoff_s)

    async def _live(self, worker: WorkerProcess) -> None:
        """One worker's life, from loading to its death, which is noted."""
        self._worker = worker
        try:
            await self._load(worker)
            while True:
                self._take_in(await worker.receive())
        except (WorkerDied, NotLoaded) as loss:
            self._note_loss(loss)
        finally:
            self._end_tasks(WorkerDied("The service is stopping."))
            self._is_ready.clear()
            self._worker = None
            await worker.stop()

    async def _load(self, worker: WorkerProcess) -> None:
        worker.send(self._start)
        try:
            # Not wait_for: on Python 3.11 it loses a cancellation that meets the worker's death.
            async with asyncio.timeout(self._patience.load_timeout_s):
                message = await worker.receive()
        except TimeoutError:
            late = f"{self._name} did not load within {self._patience.load_timeout_s:g} s."
            raise NotLoaded(late, may_pass=True) from None
        if isinstance(message, LoadFailed):
            raise NotLoaded(message.reason, may_pass=message.may_pass)
        if not isinstance(message, Loaded):
            raise WorkerDied(f"It sent {type(message).__name__} before it was loaded.")
        self._loaded, self._refused, self._failed_starts = True, False, 0
        self.info, self.gpus, self.not_ready = message.info, message.gpus, None
        self._is_ready.set()
        log.info("worker ready", extra={"worker_pid": worker.pid, "model": self._name, "load_s": message.seconds})

    def _take_in(self, message: Message) -> None:
        """Raises `WorkerDied` where the worker is of no more use."""
        if isinstance(message, Resting):
            self.gpus = message.gpus
            return
        task = None if isinstance(message, Loaded | LoadFailed) else self._tasks.get(message.id)
        if isinstance(message, Loaded | LoadFailed) or task is None or task.outcome.done():
            raise WorkerDied(f"It sent {type(message).__name__} with nothing of the kind to do.")
        if isinstance(message, Progress):
            task.on_progress(message.value)
            return
        task.outcome.set_result(message)
        if isinstance(message, Failed) and message.fatal:
            raise WorkerDied("An error left its device unusable.")
        self._deaths = 0
        if isinstance(message, Done):
            self.gpus = message.gpus
            self._on_gpu_memory(message.gpu_memory)

    def _note_loss(self, loss: WorkerDied | NotLoaded) -> None:
        """From now on nothing is given to this worker, and what it has will not come."""
        if self._loaded:
            self._deaths += not self._killed_on_request
            self.not_ready = f"The worker is being replaced. {loss}"
        else:
            self._failed_starts += 1
            self._refused = isinstance(loss, NotLoaded) and not loss.may_pass
            self.not_ready = str(loss) if isinstance(loss, NotLoaded) else f"The worker died. {loss}"
        self._is_ready.clear()
        self._end_tasks(loss)
        log.warning("worker lost", extra={
            "reason": self.not_ready, "failed_starts": self._failed_starts, "deaths": self._deaths,
            "next_start_in_s": self.backoff_s,
        })
        self._on_loss()

    def _end_tasks(self, loss: Exception) -> None:
        for task in self._tasks.values():
            if not task.outcome.done():
                task.outcome.set_exception(loss)


async def _say(notes: "asyncio.Queue[Any]", worker: WorkerProcess, work_id: int) -> None:
    while True:
        worker.send(Note(id=work_id, value=await notes.get()))


def _see(task: asyncio.Task[Any]) -> None:
    """Mark the exception as seen: the caller may have gone."""
    if not task.cancelled():
        task.exception()
