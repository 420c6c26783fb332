"""DBOS tells the time on any SQLite library, by the expression that it uses on Python 3.12 and later."""

import time
from pathlib import Path

import sqlalchemy as sa

from gateway.run.dbos_setup import mend_sqlite_clock


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
