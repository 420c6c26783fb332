"""Live progress of the jobs at work in this process, and who waits for news of a job. Used on one event loop."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.jobs import JobProgress

_BETWEEN_QUEUE_NEWS_S = 1.0  # each watcher of a waiting job looks into the database: hundreds at a time


class LiveJobs:
    """The latest progress by job id, and an event per watcher that is set on every change.

    `webhook_due` is set when a job ends whose owner wants to be told, `turn_due` when a job has come or a slot is free.
    """

    def __init__(self) -> None:
        self._progress: dict[str, JobProgress] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
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
        for event in self._watchers.get(job_id, ()):
            event.set()

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
        wait_s = max(0.0, self._queue_told_at + _BETWEEN_QUEUE_NEWS_S - time.monotonic())
        self._queue_news = asyncio.get_running_loop().call_later(wait_s, self._tell_queue)

    def _tell_queue(self) -> None:
        self._queue_news, self._queue_told_at = None, time.monotonic()
        for job_id in tuple(self._in_queue):
            self.changed(job_id)

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set on every change of the job; clear it before reading the job's state."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers:
                self._watchers.pop(job_id, None)
                self._in_queue.discard(job_id)
