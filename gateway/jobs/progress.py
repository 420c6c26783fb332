"""Live progress of the jobs at work in this process, and who waits for news of a job. Used on one event loop."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.jobs import JobProgress

_BETWEEN_QUEUE_NEWS_S = 1.0
_QUEUE_NEWS_PER_S = 250.0  # however many watch waiting jobs


class Watcher:
    """Somebody who waits for news of a job; `outdated` until told otherwise: the record is to be read again."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.outdated = True

    def tell(self, *, outdated: bool) -> None:
        """Something has changed: the record (`outdated`), or what is shown with it."""
        self.outdated = self.outdated or outdated
        self._news.set()

    def up_to_date(self) -> None:
        """Everything from now on is news. Called before the record is read."""
        self.outdated = False
        self._news.clear()

    async def wait(self, seconds: float) -> bool:
        """Whether there was news within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        except TimeoutError:
            return False


class LiveProgress:
    """The latest progress by job id, and who watches which job.

    `webhook_due` is set when a job ends whose owner wants to be told, `turn_due` when a job has come or a slot is free.
    """

    def __init__(self) -> None:
        self._progress: dict[str, JobProgress] = {}
        self._watchers: dict[str, set[Watcher]] = {}
        self._in_queue: set[str] = set()
        self._queue_news: asyncio.TimerHandle | None = None
        self._queue_told_at = 0.0
        self.webhook_due = asyncio.Event()
        self.turn_due = asyncio.Event()

    def progress(self, job_id: str) -> JobProgress | None:
        """What the running stage last reported; `None` when it reported nothing yet."""
        return self._progress.get(job_id)

    def report(self, job_id: str, progress: JobProgress) -> None:
        """Keep the progress in memory and wake the watchers."""
        self._progress[job_id] = progress
        self.changed(job_id)

    def forget(self, job_id: str) -> None:
        """Drop the progress of a stage that ended, or of a job that did, and wake the watchers."""
        self._progress.pop(job_id, None)
        self.changed(job_id)

    def changed(self, job_id: str) -> None:
        """Wake the watchers of a job whose record changed."""
        for watcher in self._watchers.get(job_id, ()):
            watcher.tell(outdated=True)

    def waits_in_queue(self, job_id: str, waits: bool) -> None:
        """Remember whether a watched job's news include its place in the queue."""
        if waits:
            self._in_queue.add(job_id)
        else:
            self._in_queue.discard(job_id)

    def queue_moved(self) -> None:
        """Wake the watchers of every waiting job: one left the queue. A queue that moves fast wakes them now and then.
        """
        if self._queue_news is not None:
            return  # they will look after this move, too
        between_s = max(_BETWEEN_QUEUE_NEWS_S, len(self._in_queue) / _QUEUE_NEWS_PER_S)
        wait_s = max(0.0, self._queue_told_at + between_s - time.monotonic())
        self._queue_news = asyncio.get_running_loop().call_later(wait_s, self._tell_queue)

    def _tell_queue(self) -> None:
        self._queue_news, self._queue_told_at = None, time.monotonic()
        for job_id in self._in_queue:
            for watcher in self._watchers.get(job_id, ()):
                watcher.tell(outdated=False)

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watcher]:
        """A watcher of the job, who is told of every change."""
        watcher = Watcher()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(watcher)
        try:
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(job_id, None)
                self._in_queue.discard(job_id)
