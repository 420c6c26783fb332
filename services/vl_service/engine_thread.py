"""The one thread that owns the model: loads it in the background, then runs one call at a time."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vl_service.backend import Backend, Deadline, DeadlineExceededError

log = logging.getLogger(__name__)
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


class ModelNotReadyError(Exception):
    """The model is still loading."""


class ModelFailedError(Exception):
    """The model could not be loaded; the message is the reason, for good."""


class QueueFullError(Exception):
    """As many calls wait as may; `retry_after_s` is a guess from the calls before."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class EngineThread:
    """Owns an engine on a thread of its own. Its methods are called on the event loop and never block it."""

    def __init__(self, name: str, load: Callable[[], Backend], *, queue_limit: int, deadline_s: float) -> None:
        self._name = name
        self._load = load
        self._queue_limit = queue_limit
        self._deadline_s = deadline_s
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vl-engine")
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vl-decode")
        self._engine: Backend | None = None
        self._failure: str | None = None
        self._in_flight = 0
        self._recent_call_s = 1.0

    def start(self) -> None:
        """Begin to load; `ready_reasons` is empty once that is done."""
        self._executor.submit(self._load_engine)

    def _load_engine(self) -> None:
        started = time.monotonic()
        try:
            engine = self._load()
        except Exception as error:  # job boundary of the load: any reason ends up in /readyz
            log.exception("the model could not be loaded", extra={"model": self._name})
            self._failure = f"the model {self._name} could not be loaded: {type(error).__name__}: {error}"
            return
        self._engine = engine
        log.info("model loaded", extra={"model": engine.info.id, "seconds": round(time.monotonic() - started, 2)})

    @property
    def in_flight(self) -> int:
        """Calls that wait or run."""
        return self._in_flight

    @property
    def failed(self) -> bool:
        """The model could not be loaded, and will not be tried again."""
        return self._failure is not None

    def ready_reasons(self) -> list[str]:
        """Why no call would succeed now; empty when one would."""
        if self._failure is not None:
            return [self._failure]
        return [] if self._engine is not None else ["the model is still loading"]

    @property
    def engine(self) -> Backend:
        """The loaded engine.

        Raises:
            ModelNotReadyError: still loading.
            ModelFailedError: loading failed.
        """
        if self._failure is not None:
            raise ModelFailedError(self._failure)
        if self._engine is None:
            raise ModelNotReadyError("the model is still loading")
        return self._engine

    async def call(
        self, prepare: Callable[[], Prepared], work: Callable[[Backend, Prepared, Deadline], Result]
    ) -> Result:
        """Run `prepare` on the decoding thread, then `work` with its result on the engine's thread, in turn.

        `prepare` has a thread of its own so that a bad picture is refused at once while the engine is busy.

        Raises:
            ModelNotReadyError, ModelFailedError: there is no engine.
            QueueFullError: `queue_limit` calls are in flight; nothing has changed.
            DeadlineExceededError: no result within the deadline, waiting included.
        """
        engine = self.engine
        if self._in_flight >= self._queue_limit:
            raise QueueFullError(max(1, round(self._recent_call_s * self._in_flight)))
        self._in_flight += 1
        deadline = Deadline(at=time.monotonic() + self._deadline_s)
        job = asyncio.create_task(self._prepare_and_run(engine, prepare, work, deadline))
        # the seat is free when the threads are done with the call, not when the caller stops waiting for it
        job.add_done_callback(self._release)
        try:
            return await asyncio.wait_for(asyncio.shield(job), self._deadline_s)
        except TimeoutError as error:
            raise DeadlineExceededError(f"no answer within {self._deadline_s:g} s") from error
        finally:
            deadline.canceled.set()

    async def _prepare_and_run(
        self, engine: Backend, prepare: Callable[[], Prepared], work: Callable[[Backend, Prepared, Deadline], Result],
        deadline: Deadline,
    ) -> Result:
        loop = asyncio.get_running_loop()

        def checked_prepare() -> Prepared:
            deadline.check()
            return prepare()

        def timed_work(prepared: Prepared) -> Result:
            deadline.check()
            started = time.monotonic()
            result = work(engine, prepared, deadline)
            self._recent_call_s = 0.7 * self._recent_call_s + 0.3 * (time.monotonic() - started)
            return result

        prepared = await loop.run_in_executor(self._decoder, checked_prepare)
        return await loop.run_in_executor(self._executor, timed_work, prepared)

    def _release(self, job: "asyncio.Task[Result]") -> None:
        self._in_flight -= 1
        if not job.cancelled():
            job.exception()  # mark it as seen: the caller may have gone

    def stop(self) -> None:
        """Let go of what waits; a running call ends at its next deadline check."""
        self._decoder.shutdown(wait=False, cancel_futures=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
