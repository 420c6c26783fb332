"""The line of waiting jobs: owners take turns, a better priority goes first, and whoever waits moves up.

A job's turn is fixed when it arrives: its round (the one after its owner's last waiting job, and never one that has
already begun) plus a handicap for each priority number. Newcomers get ever later rounds, so a job of the worst
priority is overtaken by a bounded number of others, and one owner's thousand jobs delay another owner's first by one.
Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with one job as the unit of work.
"""

import sys
import time
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contracts.jobs import JobState
from gateway.database.database import Database, metadata, put
from gateway.jobs.job import NewJob, Work, work_of

ROUNDS_PER_PRIORITY = 100
"""How many rounds of a better priority by one number go before; after so many a waiting job has caught up."""

_line = sa.Table(
    "queue_line", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),  # arrival: decides between equal turns
    sa.Column("job_id", sa.String(64), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("voxels", sa.BigInteger, nullable=False),
    sa.Column("passes", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float),  # null while it waits
    sa.Column("taken_by", sa.String(200)),  # the executor whose engine is to begin it; null while nobody has taken it
    sa.Column("needs_vl", sa.Boolean, nullable=False, server_default=sa.false()),  # its prompt has yet to be written
    sa.Column("not_before", sa.Float),  # released jobs pause; seconds since the epoch
    sa.Index("queue_line_order", "started_at", "turn", "number"),
    sa.Index("queue_line_rounds", "owner", "priority", "round"),
)
_clock = sa.Table(
    "queue_clock", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("round", sa.Integer, nullable=False),  # the latest round that has begun
)
_jobs = sa.table("jobs", *map(sa.column, ("id", "claim", "state", "created_at")))
_WAITS = _line.c.started_at.is_(None)
# Built once: most of a statement's cost is its making.
_ROUND = sa.select(_clock.c.round)
_OWN_LAST_ROUND = (  # not max(): this ends at the first row of the index that waits, however long the line is
    sa.select(_line.c.round)
    .where(_line.c.owner == sa.bindparam("of_owner"), _line.c.priority == sa.bindparam("of_priority"), _WAITS)
    .order_by(_line.c.round.desc()).limit(1)
)
_JOIN = _line.insert().inline()
_MINE = _line.c.job_id == sa.bindparam("of_job")
_LEAVE = _line.delete().where(_MINE)
_BEGIN = _line.update().where(_MINE).values(started_at=sa.bindparam("now")).returning(_line.c.round)
_ADVANCE = _clock.update().values(
    round=sa.case((_clock.c.round < sa.bindparam("begun"), sa.bindparam("begun")), else_=_clock.c.round)
)
_FREE = (
    sa.select(_line.c.job_id).where(
        _WAITS, _line.c.taken_by.is_(None),
        sa.or_(_line.c.not_before.is_(None), _line.c.not_before <= sa.bindparam("now")),
    )
    .order_by(_line.c.turn, _line.c.number).limit(sa.bindparam("most"))
)
_LET_GO = _line.update().where(_MINE).values(
    started_at=None, taken_by=None, not_before=sa.bindparam("until"), needs_vl=sa.bindparam("describes")
)
_CLAIMS = sa.select(_jobs.c.id, _jobs.c.claim)
_EVERYBODY = sa.select(
    _line.c.job_id, _line.c.turn, _line.c.number, _line.c.started_at, _line.c.model, _line.c.voxels, _line.c.passes
).order_by(_line.c.turn, _line.c.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimable:
    """Which jobs have all that they need: none without `renders`, without `describes` only those whose prompt is there,
    and none of a model that only absent addresses run."""

    renders: bool = True
    describes: bool = True
    absent_models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job in the hand of an executor; `number` counts how often it was released before."""

    job_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job at work: since when (seconds since the epoch), and what it has to do."""

    job_id: str
    started_at: float
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class LineNow:
    """Everybody who waits, in the order of their turns, and who works, as they stood at one moment."""

    order: tuple[tuple[int, int], ...]  # turn and number
    works: tuple[Work, ...]
    places: Mapping[str, int]  # by job id
    running: tuple[Started, ...]

    def place(self, job_id: str, turn: int) -> int:
        """How many wait before this waiting job; one that came since then stands behind all of its turn."""
        known = self.places.get(job_id)
        return bisect_right(self.order, (turn, sys.maxsize)) if known is None else known


def join(connection: sa.Connection, job: NewJob) -> int:
    """Put a job that is stored now into the line; returns its turn, the smallest of which is next. Turns are above 0.
    """
    begun = connection.scalar(_ROUND) or 0
    own_last = connection.scalar(_OWN_LAST_ROUND, {"of_owner": job.owner, "of_priority": job.priority}) or 0
    number = max(begun, own_last) + 1
    turn = number + max(0, job.priority) * ROUNDS_PER_PRIORITY
    work = work_of(job.parameters)
    connection.execute(_JOIN, {
        "job_id": job.id, "owner": job.owner, "priority": job.priority, "round": number, "turn": turn,
        "model": work.model, "voxels": work.voxels, "passes": work.passes, "needs_vl": job.needs_vl,
    })
    return turn


def let_go(connection: sa.Connection, job_id: str, *, not_before: float, needs_vl: bool) -> None:
    """Have a claimed job wait again at its place, and be left alone until then."""
    connection.execute(_LET_GO, {"of_job": job_id, "until": not_before, "describes": needs_vl})


def moved(connection: sa.Connection, job_id: str, to: JobState) -> None:
    """Keep the line true when a job begins or ends."""
    if to != "running":
        connection.execute(_LEAVE, {"of_job": job_id})
        return
    begun = connection.scalar(_BEGIN, {"of_job": job_id, "now": time.time()})
    if begun is not None and not connection.execute(_ADVANCE, {"begun": begun}).rowcount:
        later = sa.case((_clock.c.round < begun, begun), else_=_clock.c.round)
        put(connection, _clock, {"id": 1, "round": begun}, round=later)


class JobQueue:
    """Who begins the jobs whose turn has come. Methods block: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, executor_id: str, most: int, claimable: Claimable = Claimable()) -> list[Claim]:
        """Up to `most` of the claimable jobs, from the head of the line, which no other executor takes from now on."""
        if not claimable.renders:
            return []
        free, now = _only(claimable), time.time()
        with self._database.reading() as connection:  # an empty line, the usual one, costs no writer's lock
            if connection.execute(free, {"most": 1, "now": now}).first() is None:
                return []
        with self._database.writing() as connection:
            job_ids = list(connection.scalars(free.with_for_update(skip_locked=True), {"most": most, "now": now}))
            connection.execute(_line.update().where(_line.c.job_id.in_(job_ids)).values(taken_by=executor_id))
            found = connection.execute(_CLAIMS.where(_jobs.c.id.in_(job_ids)))
            numbers: dict[str, int] = {row[0]: row[1] for row in found}
        return [Claim(job_id=job_id, number=numbers[job_id]) for job_id in job_ids]

    def hand_back(self, job_id: str) -> None:
        """Let anybody take a job that was taken and could not be begun."""
        with self._database.writing() as connection:
            connection.execute(_line.update().where(_line.c.job_id == job_id, _WAITS).values(taken_by=None))

    def look(self) -> LineNow:
        """The whole line, some ten milliseconds for ten thousand jobs."""
        with self._database.reading() as connection:
            rows = connection.execute(_EVERYBODY).all()
        sizes: dict[tuple[str, int, int], Work] = {}  # few: one object for all that are alike

        def work(model: str, voxels: int, passes: int) -> Work:
            size = (model, voxels, passes)
            return sizes.setdefault(size, Work(model=model, voxels=voxels, passes=passes))

        waiting = [(row[0], (row[1], row[2]), work(*row[4:])) for row in rows if row[3] is None]
        return LineNow(
            order=tuple(place for _, place, _ in waiting), works=tuple(size for _, _, size in waiting),
            places={job_id: index for index, (job_id, _, _) in enumerate(waiting)},
            running=tuple(
                Started(job_id=row[0], started_at=row[3], work=work(*row[4:])) for row in rows if row[3] is not None
            ),
        )

    def in_hand(self) -> list[Claim]:
        """The jobs that were taken, begun ones too, and have not ended."""
        query = sa.select(_line.c.job_id, _jobs.c.claim).join(_jobs, _jobs.c.id == _line.c.job_id).where(
            sa.or_(~_WAITS, _line.c.taken_by.is_not(None))
        )
        with self._database.reading() as connection:
            return [Claim(job_id=row[0], number=row[1]) for row in connection.execute(query)]


def _only(claimable: Claimable) -> sa.Select[Any]:
    free = _FREE
    if not claimable.describes:
        free = free.where(~_line.c.needs_vl)
    if claimable.absent_models:
        free = free.where(_line.c.model.not_in(claimable.absent_models))
    return free


def takers(connection: sa.Connection) -> set[str]:
    """The executors that have taken jobs and not begun them yet."""
    return set(connection.scalars(sa.select(_line.c.taken_by).where(_WAITS, _line.c.taken_by.is_not(None)).distinct()))


def take_back(connection: sa.Connection, executor_ids: Collection[str]) -> None:
    """Let anybody take what these executors took and did not begin."""
    connection.execute(_line.update().where(_WAITS, _line.c.taken_by.in_(executor_ids)).values(taken_by=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Jobs by state, and the arrival (seconds since the epoch) of the oldest that waits."""

    jobs: Mapping[str, int]
    oldest_queued_at: float | None


def read_backlog(database: Database) -> Backlog:
    """Count. Blocking."""
    with database.reading() as connection:
        counted = connection.execute(sa.select(_jobs.c.state, sa.func.count()).group_by(_jobs.c.state))
        jobs = {row[0]: row[1] for row in counted}
        oldest = connection.scalar(sa.select(sa.func.min(_jobs.c.created_at)).where(_jobs.c.state == "queued"))
    return Backlog(jobs=jobs, oldest_queued_at=oldest)
