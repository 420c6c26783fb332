"""DBOS as it is mended: it asks again within seconds of a database's return, however long that was away, and tells the
time on any SQLite library, by the expression that it uses on Python 3.12 and later.
"""

import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from dbos._sys_db import db_retry
from sqlalchemy.exc import OperationalError

from gateway.run.dbos_setup import LONGEST_WAIT_S, bound_waits, mend_sqlite_clock


def test_the_engine_asks_a_lost_database_again_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_s: list[float] = []
    monkeypatch.setattr(time, "sleep", waited_s.append)
    bound_waits()

    @db_retry()
    def ask() -> str:
        if sum(waited_s) < 600:
            raise OperationalError("SELECT 1", {}, psycopg.OperationalError(""), connection_invalidated=True)
        return "answered"

    assert ask() == "answered"
    assert max(waited_s) <= LONGEST_WAIT_S
    assert len(waited_s) < 200, "it waits between two looks"


def test_a_default_of_milliseconds_is_the_time_now_on_an_old_library_too(tmp_path: Path) -> None:
    mend_sqlite_clock()
    mend_sqlite_clock()  # once is enough, twice does no harm
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE queues (id INTEGER, created_at INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))"
        )
        connection.exec_driver_sql("INSERT INTO queues (id) VALUES (1)")
        created_at = connection.exec_driver_sql("SELECT created_at FROM queues").scalar_one()
    engine.dispose()
    assert abs(created_at - 1000 * time.time()) < 60_000
