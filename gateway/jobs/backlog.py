"""How much there is to do: jobs by state, and since when the oldest waits."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.database.database import Database

_jobs = sa.table("jobs", sa.column("state"), sa.column("created_at"))


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
