"""What the routes work with: the queue, the supervisor, and the few verbs that need both."""

import asyncio
import logging

from contracts.models import Health, VideoModelInfo
from contracts.videos import VideoRequest
from video_service.catalog import check_request
from video_service.picture import read_picture
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render, Submission
from video_service.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

PURGE_INTERVAL_S = 60.0
_LOADING_RETRY_S = 2


class ServiceUnavailable(Exception):
    """Nothing can be rendered here now; the message says why."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class VideoService:
    """One queue and one supervised worker, from `start` to `stop`."""

    def __init__(self, renders: RenderQueue, supervisor: Supervisor) -> None:
        self.renders = renders
        self.supervisor = supervisor
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what an earlier run left, and start the worker; loading goes on in the background."""
        await self.renders.open()
        await self.renders.purge()
        self._tasks = [asyncio.create_task(self.supervisor.run()), asyncio.create_task(self._purge_forever())]
        for task in self._tasks:
            task.add_done_callback(_log_crash)

    async def stop(self) -> None:
        """End the worker and the followers in bounded time; what is not rendered is taken up by the next start."""
        self.renders.end_followers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.renders.close()

    async def put(self, render_id: str, request: VideoRequest) -> tuple[Render, bool]:
        """Find the render, or check the request against the model and queue it; true if it was queued now.

        Raises `ServiceUnavailable`, `RequestRefused`, `PictureUnreadable` and what `RenderQueue.put` raises.
        """
        submission = await asyncio.to_thread(Submission.of, render_id, request)
        if existing := self.renders.attach(submission):  # also while no model is there: what is done is done
            return existing, False
        info = self._usable_model()
        check_request(request, info)
        if request.image is not None:
            await asyncio.to_thread(read_picture, request.image)
        return await self.renders.put(submission, info)

    def health(self) -> Health:
        """Ready while a render that comes now would be rendered."""
        crashed = [task for task in self._tasks if task.done()]
        reason = "The supervisor crashed; restart the service." if crashed else self.supervisor.not_ready
        info = self.supervisor.info
        details = {"model": info.id, "revision": info.revision, "engine": info.engine} if info else {}
        if info is not None and info.engine_reason:
            details["engine_reason"] = info.engine_reason
        if self.supervisor.worker_pid is not None:
            details["worker_pid"] = str(self.supervisor.worker_pid)
        if reason is None:
            return Health(ready=True, details=details)
        return Health(
            ready=False, stuck=bool(crashed) or self.supervisor.is_hopeless, reasons=[reason], details=details
        )

    def _usable_model(self) -> VideoModelInfo:
        info = self.supervisor.info
        if info is None or self.supervisor.is_hopeless:
            retry_after_s = max(_LOADING_RETRY_S, round(self.supervisor.backoff_s))
            raise ServiceUnavailable(self.supervisor.not_ready or "The worker is starting.", retry_after_s)
        return info

    async def _purge_forever(self) -> None:
        while True:
            await asyncio.sleep(PURGE_INTERVAL_S)
            await self.renders.purge()


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a task of the service crashed", exc_info=error)
