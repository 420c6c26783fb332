"""What became of each job's webhook: every attempt, how it ended, and when the next one is due."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from contracts.jobs import TERMINAL_JOB_STATES
from gateway.database.database import Database, metadata

DeliveryState = Literal["waiting", "sending", "delivered", "refused", "given_up"]
MAX_ERROR_CHARS = 300

_webhooks = sa.Table(
    "webhooks", metadata,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.JSON, nullable=False),
    sa.Column("next_try_at", sa.Float),
    sa.Index("webhooks_by_state", "state"),
)
_jobs = sa.table("jobs", sa.column("id"), sa.column("state"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of the receiver: `at` in seconds since the epoch, its `status` or why there was none."""

    at: float
    seconds: float
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook as it stands: `waiting` for the job's end, `sending` until the receiver took it (`delivered`) or wanted
    no more (`refused`), or the time for trying was over (`given_up`)."""

    job_id: str
    url: str
    state: DeliveryState
    attempts: tuple[Attempt, ...]
    next_try_at: float | None


class DeliveryStore:
    """The webhooks table. Methods block for a millisecond or so: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Delivery | None:
        """The webhook of a job, if it has one."""
        with self._database.reading() as connection:
            return find(connection, job_id)

    def due(self, limit: int = 500) -> list[str]:
        """Ended jobs whose webhooks are not on their way yet."""
        query = sa.select(_webhooks.c.job_id).join(_jobs, _jobs.c.id == _webhooks.c.job_id).where(
            _webhooks.c.state == "waiting", _jobs.c.state.in_(sorted(TERMINAL_JOB_STATES))
        ).limit(limit)
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def begin(self, job_ids: Sequence[str]) -> None:
        """The engine has these webhooks now."""
        with self._database.writing() as connection:
            connection.execute(_webhooks.update().where(
                _webhooks.c.job_id.in_(job_ids), _webhooks.c.state == "waiting"
            ).values(state="sending", next_try_at=time.time()))

    def note(self, job_id: str, number: int, attempt: Attempt, state: DeliveryState, next_try_at: float | None) -> None:
        """Write down attempt `number` (from 1); noted again, after a crash, it takes the place of what was noted."""
        with self._database.writing() as connection:
            query = sa.select(_webhooks.c.attempts).where(_webhooks.c.job_id == job_id).with_for_update()
            attempts = connection.scalar(query)
            if attempts is None:
                return  # the job was removed meanwhile
            connection.execute(_webhooks.update().where(_webhooks.c.job_id == job_id).values(
                attempts=[*attempts[: number - 1], asdict(attempt)], state=state, next_try_at=next_try_at,
            ))


def expect(connection: sa.Connection, job_id: str, url: str) -> None:
    """With a new job, in its transaction: its end will be told to `url`."""
    connection.execute(_webhooks.insert().values(job_id=job_id, url=url, state="waiting", attempts=[]))


def find(connection: sa.Connection, job_id: str) -> Delivery | None:
    """The webhook of a job, if it has one."""
    row = connection.execute(sa.select(_webhooks).where(_webhooks.c.job_id == job_id)).one_or_none()
    return None if row is None else Delivery(
        job_id=row.job_id, url=row.url, state=row.state, next_try_at=row.next_try_at,
        attempts=tuple(Attempt(**attempt) for attempt in row.attempts),
    )


def drop(connection: sa.Connection, job_ids: Sequence[str]) -> None:
    """With removed jobs, in their transaction."""
    connection.execute(_webhooks.delete().where(_webhooks.c.job_id.in_(job_ids)))


def on_its_way(job_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a job has a webhook that somebody still waits for."""
    return sa.exists().where(_webhooks.c.job_id == job_id, _webhooks.c.state.in_(("waiting", "sending")))
