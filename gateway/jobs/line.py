"""The line of waiting jobs: owners take turns, a better priority goes first, and whoever waits moves up.

A job's turn is fixed when it arrives: its round (the one after its owner's last waiting job, and never one that has
already begun) plus a handicap for each priority number. Newcomers get ever later rounds, so a job of the worst
priority is overtaken by a bounded number of others, and one owner's thousand jobs delay another owner's first by one.
Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with one job as the unit of work.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from contracts.jobs import EffectiveParameters, JobState
from gateway.database import metadata
from gateway.jobs.job import NewJob

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
    sa.Index("queue_line_order", "started_at", "turn", "number"),
    sa.Index("queue_line_rounds", "owner", "priority", "round"),
)
_clock = sa.Table(
    "queue_clock", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("round", sa.Integer, nullable=False),  # the latest round that has begun
)
_WAITS = _line.c.started_at.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The size of a render: `voxels` = width x height x frames, and the network's passes over each of them."""

    model: str
    voxels: int
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job at work: since when (seconds since the epoch), and what it has to do."""

    job_id: str
    started_at: float
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is between a waiting job and its end: how many wait before it, the first of them by size, and who works."""

    position: int
    sampled: Mapping[Work, int]
    running: tuple[Started, ...]


def work_of(parameters: EffectiveParameters) -> Work:
    """The size of a render with these parameters."""
    guided = (parameters.guidance_scale or 1.0) > 1.0  # guidance runs the network twice a step
    return Work(
        model=parameters.model, voxels=parameters.width * parameters.height * parameters.num_frames,
        passes=(parameters.steps or 1) * (2 if guided else 1),
    )


def join(connection: sa.Connection, job: NewJob) -> int:
    """Put a job that is stored now into the line; returns its turn, the smallest of which is next. Turns are above 0.
    """
    begun = connection.scalar(sa.select(_clock.c.round)) or 0
    own_last = connection.scalar(
        sa.select(sa.func.max(_line.c.round))
        .where(_line.c.owner == job.owner, _line.c.priority == job.priority, _WAITS)
    ) or 0
    number = max(begun, own_last) + 1
    turn = number + max(0, job.priority) * ROUNDS_PER_PRIORITY
    work = work_of(job.parameters)
    connection.execute(_line.insert().values(
        job_id=job.id, owner=job.owner, priority=job.priority, round=number, turn=turn, model=work.model,
        voxels=work.voxels, passes=work.passes,
    ))
    return turn


def moved(connection: sa.Connection, job_id: str, to: JobState) -> None:
    """Keep the line true when a job begins or ends."""
    mine = _line.c.job_id == job_id
    if to != "running":
        connection.execute(_line.delete().where(mine))
        return
    connection.execute(_line.update().where(mine).values(started_at=time.time()))
    begun = connection.scalar(sa.select(_line.c.round).where(mine))
    if begun is not None and not connection.execute(
        _clock.update().values(round=sa.case((_clock.c.round < begun, begun), else_=_clock.c.round))
    ).rowcount:
        connection.execute(_clock.insert().values(id=1, round=begun))


def position(connection: sa.Connection, job_id: str) -> int | None:
    """How many waiting jobs have their turn before this one; `None` when it does not wait."""
    before = _before(connection, job_id)
    if before is None:
        return None
    return connection.scalar(sa.select(sa.func.count()).select_from(_line).where(_WAITS, before)) or 0


def ahead(connection: sa.Connection, job_id: str, sample: int, head: Callable[[], Mapping[Work, int]]) -> Ahead | None:
    """What is before a waiting job, sizes for the first `sample` jobs only; `None` when it does not wait.

    `head` gives the sizes of the first `sample` jobs of the whole line, which are the same for all who wait behind.
    """
    before = _before(connection, job_id)
    if before is None:
        return None
    place = connection.scalar(sa.select(sa.func.count()).select_from(_line).where(_WAITS, before)) or 0
    started = connection.execute(
        sa.select(_line.c.job_id, _line.c.started_at, _line.c.model, _line.c.voxels, _line.c.passes).where(~_WAITS)
    )
    return Ahead(
        position=place, sampled=head() if place >= sample else sizes(connection, sample, before),
        running=tuple(
            Started(job_id=row[0], started_at=row[1], work=Work(model=row[2], voxels=row[3], passes=row[4]))
            for row in started
        ),
    )


def sizes(connection: sa.Connection, sample: int, before: sa.ColumnElement[bool] | None = None) -> dict[Work, int]:
    """How many of each size are among the first `sample` waiting jobs."""
    first = sa.select(_line.c.model, _line.c.voxels, _line.c.passes).where(_WAITS)
    if before is not None:
        first = first.where(before)
    rows = first.order_by(_line.c.turn, _line.c.number).limit(sample).subquery()
    counted = connection.execute(
        sa.select(rows.c.model, rows.c.voxels, rows.c.passes, sa.func.count())
        .group_by(rows.c.model, rows.c.voxels, rows.c.passes)
    )
    return {Work(model=row[0], voxels=row[1], passes=row[2]): row[3] for row in counted}


def _before(connection: sa.Connection, job_id: str) -> sa.ColumnElement[bool] | None:
    own = connection.execute(sa.select(_line.c.turn, _line.c.number).where(_line.c.job_id == job_id, _WAITS)).first()
    if own is None:
        return None
    return sa.tuple_(_line.c.turn, _line.c.number) < sa.tuple_(sa.literal(own[0]), sa.literal(own[1]))  # by the index
