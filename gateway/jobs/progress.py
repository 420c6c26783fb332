"""How far jobs are: those at work as the services tell it, those that wait by their place in the line and the time that
renders of their size have really taken; and who waits for news. Used on one event loop.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from contracts.jobs import EffectiveParameters, JobProgress
from gateway.database.database import Database
from gateway.jobs.job import JobRecord, Work, work_of
from gateway.jobs.queue import JobQueue, LineNow, Started

_BETWEEN_QUEUE_NEWS_S = 1.0
_QUEUE_NEWS_PER_S = 250.0  # however many watch waiting jobs
_SAMPLE = 500  # jobs ahead whose sizes are looked at; a longer line is taken to go on like its beginning
_SHORT = 50
_SHORT_FRESH_S, _LONG_FRESH_S = 0.02, 0.8  # less than the time between the news of a queue that moves
_NEWEST_WEIGHT = 0.3
_LOOKING_AT_MOST = 0.05  # of the time, however long the line is
Key = TypeVar("Key", Work, str)
_LEARN_FROM = 200
_jobs = sa.table(
    "jobs", sa.column("state"), sa.column("sequence"), sa.column("parameters", sa.JSON), sa.column("timings", sa.JSON)
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A waiting job's place (0: next) and seconds to its end, `None` before any such render was measured."""

    position: int
    eta_s: float | None


class Pace:
    """Measured seconds of renders: of exactly this size where there were any, else scaled from the model's others."""

    def __init__(self) -> None:
        self._exact: dict[Work, float] = {}
        self._denoise: dict[str, float] = {}  # seconds per voxel and pass
        self._other: dict[str, float] = {}  # seconds per voxel

    def learn(self, parameters: EffectiveParameters, timings: Mapping[str, float]) -> None:
        """Take in the timings of a completed job."""
        denoise_s = timings.get("render.denoise")
        if denoise_s is None:
            return
        work = work_of(parameters)
        # Frames are written while later ones decode.
        other_s = max(timings.get("render.decode", 0.0), timings.get("render.write", 0.0)) + sum(
            timings.get(f"render.{stage}", 0.0) for stage in ("text", "condition")
        )
        _average(self._exact, work, denoise_s + other_s)
        _average(self._denoise, work.model, denoise_s / (work.voxels * work.passes))
        _average(self._other, work.model, other_s / work.voxels)

    def seconds(self, work: Work) -> float | None:
        """Seconds of such a render, `None` where the model was never measured."""
        if work in self._exact:
            return self._exact[work]
        if work.model not in self._denoise:
            return None
        return work.voxels * (self._denoise[work.model] * work.passes + self._other[work.model])


class Eta:
    """What waiting jobs can expect, as of the last look at the line. Used on the event loop, but for what blocks."""

    def __init__(self, database: Database, live: LiveProgress, servers: Callable[[], int]) -> None:
        self._database = database
        self._queue = JobQueue(database)
        self._live = live
        self._servers = servers
        self._pace = Pace()
        self._line = LineNow(order=(), works=(), places={}, running=())
        self._ahead_s: tuple[float | None, ...] = (0.0,)  # of the first so many in the line
        self._fresh_until = 0.0

    def learn_from_the_past(self) -> None:
        """Take in the renders of former processes, oldest first. Blocking."""
        query = (
            sa.select(_jobs.c.parameters, _jobs.c.timings).where(_jobs.c.state == "completed")
            .order_by(_jobs.c.sequence.desc()).limit(_LEARN_FROM)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        for parameters, timings in reversed(rows):
            self._pace.learn(EffectiveParameters.model_validate(parameters), timings)

    def ended(self, job: JobRecord) -> None:
        """A job has ended: one more measurement, if it completed."""
        if job.state == "completed":
            self._pace.learn(job.parameters, job.timings)

    def moved(self) -> None:
        """Somebody came or went: a short line is looked at again before the next answer, a long one once a second."""
        if len(self._line.order) <= _SHORT:
            self._fresh_until = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the last look still counts."""
        return time.monotonic() < self._fresh_until

    def knows(self, job_id: str) -> bool:
        """Whether the job stood in the line at the last look, and that look still counts."""
        return self.fresh and job_id in self._line.places

    def look(self) -> None:
        """Look at the line. Blocking."""
        began = time.monotonic()
        line = self._queue.look()
        self._ahead_s = tuple(_running_total(self._pace.seconds(work) for work in line.works[:_SAMPLE]))
        self._line = line
        fresh_s = _SHORT_FRESH_S if len(line.order) <= _SHORT else _LONG_FRESH_S
        self._fresh_until = began + max(fresh_s, (time.monotonic() - began) / _LOOKING_AT_MOST)

    def of(self, job: JobRecord) -> Waiting:
        """The place and time of a waiting job."""
        place = self._line.place(job.id, job.turn)
        own_s = self._pace.seconds(work_of(job.parameters))
        parts = [self._remaining(started) for started in self._line.running]
        running = [seconds for seconds in parts if seconds is not None]
        sampled = min(place, len(self._ahead_s) - 1)
        sampled_s = self._ahead_s[sampled]
        if own_s is None or sampled_s is None or len(running) < len(parts):
            return Waiting(position=place, eta_s=None)
        waiting_s = sampled_s * (place / sampled) if sampled else 0.0
        eta_s = own_s + (sum(running) + waiting_s) / max(1, self._servers())
        return Waiting(position=place, eta_s=round(eta_s, 1))

    def _remaining(self, started: Started) -> float | None:
        live = self._live.progress(started.job_id)
        if live is not None and live.eta_s is not None:
            return live.eta_s
        expected = self._pace.seconds(started.work)
        return None if expected is None else max(0.0, expected - (time.time() - started.started_at))


def _running_total(seconds: Iterable[float | None]) -> Iterator[float | None]:
    """The sums of the first 0, 1, 2 … values; `None` from the first unknown one on."""
    total: float | None = 0.0
    yield total
    for value in seconds:
        total = None if total is None or value is None else total + value
        yield total


def _average(of: dict[Key, float], key: Key, new: float) -> None:
    of[key] = new if key not in of else of[key] + _NEWEST_WEIGHT * (new - of[key])
