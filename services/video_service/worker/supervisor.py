"""Keeps one worker process alive and gives it the renders, one at a time."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from contracts.errors import Problem
from contracts.models import VideoModelInfo
from video_service.catalog import ModelSource, find_model
from video_service.checkpoint_folder import ModelNotYetAvailable, ModelUnavailable
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render
from video_service.settings import VideoSettings
from video_service.worker.messages import Loaded, LoadFailed, StartCommand
from video_service.worker.rendering import Files, Patience, render_on
from video_service.worker.worker_process import WorkerDied, WorkerProcess
from web.calls import Call, work_on

log = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "video_service.worker")
MAX_BACKOFF_S = 30.0
MAX_START_FAILURES = 3
"""Failed starts in a row after which nothing is accepted or kept waiting; starting goes on."""


class Supervisor:
    """Runs workers, one after another, for as long as `run` runs."""

    def __init__(
        self, settings: VideoSettings, renders: RenderQueue, *, worker_command: Sequence[str] = WORKER_COMMAND
    ) -> None:
        self._settings = settings
        self._renders = renders
        self._worker_command = worker_command
        self._worker: WorkerProcess | None = None
        self._start_failures = 0
        self._refused = False
        self._loaded = False
        self.info: VideoModelInfo | None = None
        """The model, once found; it is known before it is loaded."""
        self.not_ready: str | None = "The worker is starting."
        """Why nothing can be rendered now; None while a worker with the model lives."""

    @property
    def is_hopeless(self) -> bool:
        """Whether a new render would only wait in vain: the model is unusable, or the worker failed to start again and
        again. Starting goes on all the same: files may appear."""
        return self._refused or self._start_failures >= MAX_START_FAILURES

    @property
    def backoff_s(self) -> float:
        """Seconds to the next start: none after a crash in a render, doubling while starting itself fails."""
        return min(MAX_BACKOFF_S, 2.0 ** (self._start_failures - 1)) if self._start_failures else 0.0

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    async def run(self) -> None:
        """Start a worker, let it work until it dies, start the next; until cancelled."""
        while True:
            try:
                await self._one_worker()
            except (WorkerDied, ModelUnavailable, OSError) as error:
                await self._note_loss(error)
            await self._pause(self.backoff_s)

    async def _pause(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    async def _one_worker(self) -> None:
        self._loaded = False
        source = await asyncio.to_thread(find_model, self._settings)
        self.info = source.info
        worker = self._worker = await WorkerProcess.start(self._worker_command)
        try:
            await self._load(worker, source)
            await self._work(worker)
        finally:
            self._worker = None
            await worker.stop()

    async def _load(self, worker: WorkerProcess, source: ModelSource) -> None:
        if not self._start_failures:
            self.not_ready = f"{source.id} is loading."
        worker.send(StartCommand(settings=self._settings, source=source))
        try:
            # Not wait_for: on Python 3.11 it loses a cancellation that meets the worker's death.
            async with asyncio.timeout(self._settings.load_timeout_s):
                message = await worker.receive()
        except TimeoutError:
            raise ModelNotYetAvailable(
                f"{source.id} did not load within {self._settings.load_timeout_s:g} s (VIDEO_LOAD_TIMEOUT_S)."
            ) from None
        if isinstance(message, LoadFailed):
            raise (ModelNotYetAvailable if message.may_pass else ModelUnavailable)(message.reason)
        if not isinstance(message, Loaded):
            raise WorkerDied(f"It sent {message.kind} before it was loaded.")
        self._loaded, self._refused, self._start_failures, self.not_ready = True, False, 0, None
        log.info("worker ready", extra={"worker_pid": worker.pid, "model": source.id, "load_s": message.seconds})

    async def _work(self, worker: WorkerProcess) -> None:
        """Render what waits until the worker is lost; raises `WorkerDied`."""
        while True:
            await self._wait_for_work(worker)
            render = await self._renders.next()
            if render is not None:
                await self._render(worker, render)
                await self._renders.purge()

    async def _wait_for_work(self, worker: WorkerProcess) -> None:
        work, death = asyncio.create_task(self._renders.wait()), asyncio.create_task(worker.receive())
        try:
            await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                message = death.result()  # raises where the worker died
                raise WorkerDied(f"It sent {message.kind} with nothing to do.")
        finally:
            work.cancel()
            death.cancel()
            await asyncio.wait({work, death})  # the next reader of the socket must not meet this one

    async def _render(self, worker: WorkerProcess, render: Render) -> None:
        origin = render.record
        work_on(Call.begun(request_id=origin.request_id, traceparent=origin.traceparent, job_id=render.id))
        log.info("render started", extra={"render_id": render.id, "attempt": render.record.attempts})
        store = self._renders.store
        ending = await render_on(
            worker, render,
            Files(request=store.request_path(render.id), video=store.video_path(render.id)),
            lambda stage, done, total: self._renders.advance(render, stage, done, total),
            Patience(
                render_timeout_s=self._settings.render_timeout_s, cancel_grace_s=self._settings.cancel_grace_s
            ),
        )
        self._renders.metrics.gpu_memory(ending.gpu_memory)
        if ending.worker_lost is not None:
            self.not_ready = f"The worker is being replaced. {ending.worker_lost}"
            result = await asyncio.to_thread(store.unreported_result, render.id)
            if ending.state == "failed" and result is not None:  # it died after the last frame, before it could say so
                ending = replace(ending, state="completed", error=None, result=result)
        await self._renders.finish(render, ending.state, error=ending.error, result=ending.result)
        if ending.worker_lost is not None:
            raise WorkerDied(ending.worker_lost)

    async def _note_loss(self, error: Exception) -> None:
        reason = f"The worker died. {error}" if isinstance(error, WorkerDied) else str(error)
        if self._loaded:
            self.not_ready = f"The worker is being replaced. {error}"
        else:
            self._start_failures += 1
            self._refused = isinstance(error, ModelUnavailable) and not isinstance(error, ModelNotYetAvailable)
            self.not_ready = reason
        log.warning("worker lost", extra={
            "reason": reason, "start_failures": self._start_failures, "next_start_in_s": self.backoff_s,
        })
        if self.is_hopeless:
            await self._renders.fail_waiting(Problem(
                status=503, code="model_unavailable", title="The model cannot be loaded", detail=self.not_ready,
            ))
