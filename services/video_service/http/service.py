"""What the routes work with: the queue, the supervised worker, and the few verbs that need both."""

import asyncio

from contracts.models import Health, VideoModelInfo
from contracts.refusal import Refusal
from contracts.resolve import resolve_request
from contracts.videos import VideoRequest
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render, Submission
from video_service.worker.runner import run_renders
from web.worker.errors import NotReady
from web.worker.supervisor import Supervisor, end_process_if_it_crashes

PURGE_INTERVAL_S = 60.0
_LOADING_RETRY_S = 2


class ServiceUnavailable(Refusal):
    """Nothing can be rendered here now; the detail says why."""

    status, code, title = 503, "unavailable", "Nothing can be rendered now"


class VideoService:
    """One queue and one supervised worker, from `start` to `stop`."""

    def __init__(
        self, renders: RenderQueue, worker: Supervisor[VideoModelInfo], *, render_timeout_s: float
    ) -> None:
        self.renders = renders
        self.worker = worker
        self._render_timeout_s = render_timeout_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the worker; loading goes on in the background."""
        self.worker.start()
        self._tasks = [
            asyncio.create_task(
                run_renders(self.renders, self.worker, render_timeout_s=self._render_timeout_s), name="the runner"),
            asyncio.create_task(self._purge_forever(), name="the purge"),
        ]
        for task in self._tasks:
            end_process_if_it_crashes(task)

    async def stop(self) -> None:
        """End the followers and the worker in bounded time. What is not rendered is forgotten."""
        self.renders.end_followers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worker.stop()

    async def put(self, render_id: str, request: VideoRequest) -> tuple[Render, bool]:
        """Find the render, or check the request against the model and queue it; true if it was queued now.

        Raises `ServiceUnavailable`, `ParameterRefused` and what `RenderQueue.put` raises.
        """
        submission = await asyncio.to_thread(Submission.of, render_id, request)
        if existing := self.renders.attach(submission):  # also while no model is there: what is done is done
            return existing, False
        info = self.usable_model()
        resolve_request(request, info)
        return self.renders.put(submission, self.usable_model())

    def usable_model(self) -> VideoModelInfo:
        """The model that renders; raises `ServiceUnavailable` where nothing loaded one yet, or workers keep dying."""
        info = self.worker.info
        if info is not None and not self.worker.is_stuck:
            return info
        try:
            self.worker.require_ready()
        except NotReady as error:
            raise ServiceUnavailable(
                str(error), retry_after_s=max(_LOADING_RETRY_S, error.retry_after_s)
            ) from None
        raise AssertionError("a ready worker has said what it can do")

    def health(self) -> Health:
        """Ready while a render that comes now would be rendered."""
        info = self.worker.info
        details = {"model": info.id, "revision": info.revision, "engine": info.engine} if info else {}
        if info is not None and info.engine_reason:
            details["engine_reason"] = info.engine_reason
        if self.worker.worker_pid is not None:
            details["worker_pid"] = str(self.worker.worker_pid)
        reason = self.worker.not_ready
        return Health(
            ready=reason is None, stuck=self.worker.is_stuck, reasons=[reason] if reason else [], details=details)

    async def _purge_forever(self) -> None:
        while True:
            await asyncio.sleep(PURGE_INTERVAL_S)
            self.renders.purge()
