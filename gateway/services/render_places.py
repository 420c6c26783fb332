"""Where each render was asked for, written down before it is asked for: none is made twice, none is left behind."""

import time
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.database.database import Database, metadata, put
from gateway.jobs.job import UNFINISHED

_places = sa.Table(
    "render_places", metadata,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("address", sa.String(512), primary_key=True),
    sa.Column("chosen_at", sa.Float, nullable=False),
    sa.Column("abandoned", sa.Boolean, nullable=False),  # another address renders it now
)
_jobs = sa.table("jobs", sa.column("id"), sa.column("state"))
# Built once: most of a statement's cost is its making.
_OF_JOB, _AT = _places.c.job_id == sa.bindparam("of_job"), sa.bindparam("at")
_LEAVE_OTHERS = _places.update().where(_OF_JOB, _places.c.address != _AT).values(abandoned=True)
_COME_BACK = _places.update().where(_OF_JOB, _places.c.address == _AT).values(abandoned=False)
_CURRENT = sa.select(_places.c.address).where(_OF_JOB, ~_places.c.abandoned)
_ALL = sa.select(_places.c.address).where(_OF_JOB)
_FORGET = _places.delete().where(_OF_JOB, _places.c.address == _AT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftRender:
    """A render that nobody waits for any more, at the address that may still have it."""

    job_id: str
    address: str
    chosen_at: float
    """Seconds since the epoch."""


class RenderPlaces:
    """The table of places, in the jobs' database. Methods block: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def choose(self, job_id: str, address: str) -> None:
        """The job's render belongs to `address` from now on; whoever had it before is to drop it."""
        named = {"of_job": job_id, "at": address}
        with self._database.writing() as connection:
            connection.execute(_LEAVE_OTHERS, named)
            if not connection.execute(_COME_BACK, named).rowcount:
                row = {"job_id": job_id, "address": address, "chosen_at": time.time(), "abandoned": False}
                put(connection, _places, row)

    def current(self, job_id: str) -> str | None:
        """The address that the job's render belongs to, `None` where it was never asked for."""
        with self._database.reading() as connection:
            return connection.scalar(_CURRENT, {"of_job": job_id})

    def all_of(self, job_id: str) -> list[str]:
        """Every address that may have something of the job's render."""
        with self._database.reading() as connection:
            return list(connection.scalars(_ALL, {"of_job": job_id}))

    def load(self) -> dict[str, int]:
        """How many renders of unfinished jobs each address has."""
        query = (
            sa.select(_places.c.address, sa.func.count())
            .join(_jobs, _jobs.c.id == _places.c.job_id)
            .where(~_places.c.abandoned, _jobs.c.state.in_(UNFINISHED))
            .group_by(_places.c.address)
        )
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def left(self, limit: int = 200) -> list[LeftRender]:
        """Renders of jobs that ended or are gone, and those that another address took over."""
        waited_for = sa.exists().where(
            _jobs.c.id == _places.c.job_id, _jobs.c.state.in_(UNFINISHED)
        )
        query = (
            sa.select(_places.c.job_id, _places.c.address, _places.c.chosen_at)
            .where(sa.or_(_places.c.abandoned, ~waited_for)).order_by(_places.c.chosen_at).limit(limit)
        )
        with self._database.reading() as connection:
            return [LeftRender(**row._asdict()) for row in connection.execute(query)]

    def forget(self, job_id: str, address: str) -> None:
        """Nothing of the job's render is at `address`."""
        with self._database.writing() as connection:
            connection.execute(_FORGET, {"of_job": job_id, "at": address})
