"""When a waiting job will be done: its place in the line, and the time that renders of its size have really taken."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from contracts.jobs import EffectiveParameters
from gateway.database import Database
from gateway.jobs.job import JobRecord
from gateway.jobs.line import Started, Work, ahead, sizes, work_of
from gateway.jobs.live import LiveJobs

_SAMPLE = 500  # jobs ahead whose sizes are looked at; a longer line is taken to go on like its beginning
_NEWEST_WEIGHT = 0.3
Key = TypeVar("Key", Work, str)
_LEARN_FROM = 200
_jobs = sa.table(
    "jobs", sa.column("state"), sa.column("sequence"), sa.column("parameters", sa.JSON), sa.column("timings", sa.JSON)
)


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


class Outlook:
    """What waiting jobs can expect. Methods but `completed` block: call them off the event loop."""

    def __init__(self, database: Database, live: LiveJobs, servers: Callable[[], int]) -> None:
        self._database = database
        self._live = live
        self._servers = servers
        self._pace = Pace()
        self._head_sizes: Mapping[Work, int] = {}
        self._head_fresh_until = 0.0

    def learn_from_the_past(self) -> None:
        """Take in the renders of former processes, oldest first."""
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

    def of(self, job: JobRecord) -> Waiting | None:
        """The place and time of a waiting job; `None` for any other."""
        with self._database.reading() as connection:
            before = ahead(connection, job.id, _SAMPLE, lambda: self._head(connection))
        if before is None:
            return None
        own_s = self._pace.seconds(work_of(job.parameters))
        parts = [self._remaining(started) for started in before.running]
        sampled = [(self._pace.seconds(work), count) for work, count in before.sampled.items()]
        known = [(seconds, count) for seconds, count in sampled if seconds is not None]
        running = [seconds for seconds in parts if seconds is not None]
        if own_s is None or len(known) < len(sampled) or len(running) < len(parts):
            return Waiting(position=before.position, eta_s=None)
        looked_at = sum(count for _, count in known)
        waiting_s = sum(seconds * count for seconds, count in known) * (before.position / looked_at if known else 0.0)
        eta_s = own_s + (sum(running) + waiting_s) / max(1, self._servers())
        return Waiting(position=before.position, eta_s=round(eta_s, 1))

    def _head(self, connection: sa.Connection) -> Mapping[Work, int]:
        """The sizes at the head of a long line, looked at once a second, however many wait behind and ask."""
        if time.monotonic() >= self._head_fresh_until:
            self._head_sizes = sizes(connection, _SAMPLE)
            self._head_fresh_until = time.monotonic() + 1.0
        return self._head_sizes

    def _remaining(self, started: Started) -> float | None:
        live = self._live.progress(started.job_id)
        if live is not None and live.eta_s is not None:
            return live.eta_s
        expected = self._pace.seconds(started.work)
        return None if expected is None else max(0.0, expected - (time.time() - started.started_at))


def _average(of: dict[Key, float], key: Key, new: float) -> None:
    of[key] = new if key not in of else of[key] + _NEWEST_WEIGHT * (new - of[key])
