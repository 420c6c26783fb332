"""The model as the HTTP process knows it: a supervised worker, a bounded queue before it, a deadline for every call."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from contracts.chat import ChatEnd, ChatRequest
from contracts.describe import DescribeResponse
from contracts.models import VLModelInfo
from contracts.refusal import Refusal
from vl_service.backend import LATE, ChatWork, DeadlineExceededError, Described, Look, Looked, Replied, Task, Work
from vl_service.settings import Settings
from web.worker.devices import devices_of
from web.worker.errors import NotReady, WorkerDied, WorkStopped
from web.worker.supervisor import Patience, Supervisor

T = TypeVar("T")
WORKER_COMMAND = (sys.executable, "-m", "vl_service.worker")
_AFTER_A_DEATH_S = 2  # until the next worker may have loaded a model
_LEAST_GRACE_S = 60.0  # a long prompt's first step cannot be stopped in its middle


class ModelLoading(Refusal):
    """The first worker is not ready yet."""

    status, code, title = 503, "model_loading", "The model is still loading"


class ModelFailed(Refusal):
    """It could not be loaded, or its workers die one after another. Starting goes on."""

    status, code, title = 503, "model_failed", "The model does not run"


class ModelUnavailable(Refusal):
    """The worker died and is being replaced; asking again changes nothing and is safe."""

    status, code, title = 503, "unavailable", "The model is being replaced"


class QueueFull(Refusal):
    """As many calls wait as may."""

    status, code, title = 429, "queue_full", "Too many requests at once"


class Model:
    """Owns the worker process from `start` to `stop`. Its methods are called on the event loop and never block it."""

    def __init__(
        self, settings: Settings, command: Sequence[str] = WORKER_COMMAND, *,
        on_gpu_memory: Callable[[Mapping[str, Mapping[str, int]]], None] = lambda _: None,
    ) -> None:
        """`command` gets the descriptor of a socket appended."""
        self._queue_limit, self._deadline_s = settings.queue_limit, settings.deadline_s
        # the token is for what the worker asks of others: only a language role's does
        told = settings if settings.role == "language" else settings.model_copy(update={"internal_token": None})
        self._supervisor: Supervisor[VLModelInfo] = Supervisor(
            command, told, name=f"The model {settings.model}", at_once=settings.queue_limit,
            patience=Patience(cancel_grace_s=max(_LEAST_GRACE_S, settings.deadline_s)), on_gpu_memory=on_gpu_memory,
        )
        self._info: VLModelInfo | None = None
        self._recent_work_s = 1.0
        self.in_flight = 0
        """Calls that wait or run."""

    def start(self) -> None:
        """Begin to load; `not_ready` is None once that is done."""
        self._supervisor.start()

    async def stop(self) -> None:
        """End the worker; what waits for it fails."""
        await self._supervisor.stop()

    @property
    def not_ready(self) -> str | None:
        """Why no call would succeed now; None when one would."""
        return self._supervisor.not_ready

    @property
    def is_stuck(self) -> bool:
        """Whether waiting is in vain, as far as anybody can tell."""
        return self._supervisor.is_stuck

    @property
    def worker_pid(self) -> int | None:
        return self._supervisor.worker_pid

    @property
    def info(self) -> VLModelInfo:
        """Which model this is, or was while its worker is being replaced. Raises `ModelLoading`, `ModelFailed`.

        `at_once` is half of the queue at most: who asks so much at one time leaves places for others.
        """
        known = self._info or self._supervisor.info
        if known is None:
            raise self._not_now()
        own: dict[str, object] = {"devices": devices_of(known.engine, self._supervisor.gpus)}
        if known.at_once is not None:
            own["at_once"] = min(known.at_once, max(1, self._queue_limit // 2))
        return known.model_copy(update=own)

    def _not_now(self) -> Refusal:
        retry_after_s = max(_AFTER_A_DEATH_S, round(self._supervisor.backoff_s))
        reason = self._supervisor.not_ready or "The worker was lost."
        if self.is_stuck:
            return ModelFailed(f"{reason} Check VL_MODEL; it is tried again.", retry_after_s=retry_after_s)
        if self._supervisor.info is None:
            return ModelLoading(f"{reason} Retry in a moment.", retry_after_s=retry_after_s)
        return ModelUnavailable(f"{reason} Retry in a moment.", retry_after_s=retry_after_s)

    async def answer(
        self, image: bytes | None, tasks: Sequence[Task], started: float, *, max_pixels: int | None = None
    ) -> DescribeResponse:
        """Answer the tasks about the image. `started` is of `time.monotonic`.

        Raises:
            ModelLoading, ModelFailed, ModelUnavailable: there is no worker, or it died in this call.
            QueueFull: `queue_limit` calls are in flight; nothing has changed.
            DeadlineExceededError: no result within the deadline, waiting included.
            WorkFailed: it did.
        """
        async def work(due: float, stop: asyncio.Event) -> DescribeResponse:
            described: Described = await self._work(
                Work(image=image, tasks=tuple(tasks), started=started, due=due, max_pixels=max_pixels), stop)
            return described.response

        return await self._in_time(work)

    async def features(self, image: bytes) -> Looked:
        """What the vision tower sees in the image. Raises what `answer` raises."""
        async def work(due: float, stop: asyncio.Event) -> Looked:
            return await self._work(Look(image=image, due=due), stop)

        return await self._in_time(work)

    async def _in_time(self, do: Callable[[float, asyncio.Event], Coroutine[Any, Any, T]]) -> T:
        """What `do` makes of its deadline (`time.monotonic`) and of the event that asks it to stop."""
        self._admit()
        stop, due = asyncio.Event(), time.monotonic() + self._deadline_s
        job = asyncio.create_task(do(due, stop))
        # the seat is free when the call has left the worker, not when the caller stops waiting for it
        job.add_done_callback(self._release)
        try:
            return await asyncio.wait_for(asyncio.shield(job), self._deadline_s)
        except TimeoutError as error:
            raise DeadlineExceededError(LATE) from error
        finally:
            stop.set()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[str | ChatEnd]:
        """Reply in turn: pieces of text as they are written, then the end. Raises at once what is known at once.

        What it returns raises the rest of what `answer` does. Closed early, the worker stops within a token.
        """
        self._admit()
        stop, due = asyncio.Event(), time.monotonic() + self._deadline_s
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        work = ChatWork(turns=request.turns, options=request.options, images=request.pictures, due=due)
        job: asyncio.Task[Replied] = asyncio.create_task(self._work(work, stop, pieces.put_nowait))
        job.add_done_callback(self._release)
        job.add_done_callback(lambda _: pieces.put_nowait(None))
        pieces.put_nowait("")
        reply = _followed(job, pieces, stop, due)
        await anext(reply)  # from here on, closing it stops the work
        return reply

    def _admit(self) -> None:
        """Take a seat. Raises `ModelLoading`, `ModelFailed`, `ModelUnavailable`, `QueueFull`."""
        if self._supervisor.not_ready is not None:
            raise self._not_now()
        if self.in_flight >= self._queue_limit:
            wait_s = max(1, round(self._recent_work_s * self.in_flight))
            raise QueueFull(
                f"The vision-language service is busy; retry in {wait_s} s.", retry_after_s=wait_s)
        self.in_flight += 1

    async def _work(
        self, work: Work | Look | ChatWork, stop: asyncio.Event, on_progress: Callable[[Any], None] = lambda _: None
    ) -> Any:
        """What the worker makes of it, a `Described`, `Looked` or `Replied`."""
        try:
            done: Described | Looked | Replied = await self._supervisor.do(work, on_progress=on_progress, stop=stop)
        except (NotReady, WorkerDied) as error:
            raise self._not_now() from error
        except WorkStopped as error:
            raise DeadlineExceededError(LATE) from error
        self._info = done.info
        self._recent_work_s = 0.7 * self._recent_work_s + 0.3 * done.seconds
        return done

    def _release(self, job: "asyncio.Task[Any]") -> None:
        self.in_flight -= 1
        if not job.cancelled():
            job.exception()  # mark it as seen: the caller may have gone


async def _followed(
    job: "asyncio.Task[Replied]", pieces: "asyncio.Queue[str | None]", stop: asyncio.Event, due: float
) -> AsyncGenerator[str | ChatEnd]:
    try:
        while True:
            # Not wait_for: on Python 3.11 it loses a cancellation that meets a piece.
            async with asyncio.timeout(due - time.monotonic()):
                piece = await pieces.get()
            if piece is None:
                break
            yield piece
        yield (await job).end
    except TimeoutError as error:
        raise DeadlineExceededError(LATE) from error
    finally:
        stop.set()
