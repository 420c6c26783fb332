"""Lets DBOS tell the time where SQLite is older than 3.42, such as with Debian 12's library.

On Python 3.12 and later DBOS takes for granted that `unixepoch('subsec')` works, in its statements and in the columns'
defaults. An older library answers NULL, and not even the first row of a new database can be written.
"""

import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

_KNOWS_SUBSEC = (3, 42)


def mend_sqlite_clock() -> None:
    """Give every SQLite connection that this process opens from now on a `unixepoch('subsec')` that works."""
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
