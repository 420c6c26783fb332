"""DBOS as this gateway has it: its tables in place, its journal, clock and waits mended, its log among ours."""

import logging
import sqlite3
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import dbos._sys_db
import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy import event

APPLICATION: Final = "stillmotion"
# Jobs in flight are taken up by any later build: it stays the same until `run_job` changes the order of its parts.
APPLICATION_VERSION: Final = "1"
LONGEST_WAIT_S: Final = 5.0
_KNOWS_SUBSEC: Final = (3, 42)


def prepare(url: sa.URL, queues: Mapping[str, int], poll_s: float) -> None:
    """Make the database, and the `queues` with so many workers each. Blocking.

    A queue that is there at launch is polled from the first moment on.
    """
    full_url = grow(url)
    client = DBOSClient(
        system_database_url=full_url, serializer=DBOSPortableJSONSerializer(), application_name=APPLICATION
    )
    try:
        for name, workers in queues.items():
            client.register_queue(
                name, worker_concurrency=workers, polling_interval_sec=poll_s, on_conflict="always_update",
                application_name=APPLICATION,
            )
    finally:
        client.destroy()


def grow(url: sa.URL) -> str:
    """Make the engine's tables, or what this version of them has more; returns the URL as text. Blocking."""
    full_url = url.render_as_string(hide_password=False)
    bound_waits()
    if url.get_backend_name() == "sqlite":
        mend_sqlite_clock()
        _use_wal(str(url.database))
    DBOS.migrate(full_url)
    return full_url


def config(url: sa.URL, executor_id: str) -> DBOSConfig:
    """For `DBOS`."""
    return DBOSConfig(
        name=APPLICATION, system_database_url=url.render_as_string(hide_password=False), executor_id=executor_id,
        application_version=APPLICATION_VERSION, serializer=DBOSPortableJSONSerializer(), enable_otlp=False,
        log_level="WARNING",
    )


def bound_waits() -> None:
    """Have DBOS ask a lost database again every few seconds.

    It asks after 1 s, 2 s, 4 s … 60 s, each by half more or less: after an outage of minutes, jobs stood still for up
    to 90 s more. Neither `DBOSConfig` nor the environment bounds that (3.4), so its module gets a clock on which nobody
    sleeps for longer.
    """
    dbos._sys_db.time = SimpleNamespace(  # type: ignore[assignment]
        **{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, LONGEST_WAIT_S))})


def mend_sqlite_clock() -> None:
    """Give every SQLite connection that this process opens from now on a `unixepoch('subsec')` that works.

    On Python 3.12 and later DBOS takes for granted that it does. A library before 3.42, such as Debian 12's, answers
    NULL, and not even the first row of a new database can be written.
    """
    if sqlite3.sqlite_version_info < _KNOWS_SUBSEC and not event.contains(sa.Engine, "connect", _teach):
        event.listen(sa.Engine, "connect", _teach)


def _teach(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, _unixepoch)


def _unixepoch(modifier: str) -> float:
    """Seconds since 1970 in whole milliseconds, as SQLite gives them."""
    if modifier != "subsec":
        raise ValueError(f"unixepoch({modifier!r}) is not known here")
    return time.time_ns() // 1_000_000 / 1000


def _use_wal(database: str) -> None:
    # Before DBOS opens it: its own default (a rollback journal) takes four times as long for each write.
    connection = sqlite3.connect(database)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def log_as_everything_else() -> None:
    """Send what DBOS says to our handlers. After `DBOS()`, which gives it one of its own."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
    logger.addFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Canceling a job and stopping the process are no errors, though DBOS reports them with a traceback."""
    kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
    return "WorkflowCancelled" not in kind and not record.getMessage().startswith("Asyncio task cancelled")
