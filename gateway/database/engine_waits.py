"""Bounds how long DBOS stays away from a database that is back.

It asks a database that was lost again after 1 s, 2 s, 4 s … 60 s, each by half more or less, and has no setting for it:
after an outage of minutes, jobs stood still for up to 90 s more.
"""

import time
from typing import Any

import dbos._sys_db

LONGEST_WAIT_S = 5.0


class _PatientClock:
    """The module `time`, but nobody sleeps longer than `LONGEST_WAIT_S` at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, LONGEST_WAIT_S))


def bound_engine_waits() -> None:
    """For all that this process's DBOS does with its database from now on."""
    dbos._sys_db.time = _PatientClock()  # type: ignore[assignment]
