"""What a driver's error says of the database itself: busy, full or damaged. Anything else is our own fault."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from contracts.refusal import Refusal

_SQLITE_PASSES = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
})
DISK_FULL = "The disk is full: delete jobs that are done with, or give the server more space."
_POSTGRES_PASSES = ("08", "53", "57P", "40001", "40P01", "55P03", "25006")
"""The beginnings of SQLSTATE: connections, resources, shutdown, collisions, locks, a server that only reads for now."""


class DatabaseBusy(Refusal, SQLAlchemyError):  # pyright: ignore[reportIncompatibleVariableOverride] - its `code`
    """The database cannot be used for now: away, locked, read-only. The same call may succeed later."""

    status, code, title = 503, "database_unavailable", "The database cannot be used now"

    def __init__(self, said: str) -> None:
        super().__init__("No job is lost. Send the request again in 5 s.", retry_after_s=5, log=said)


class DatabaseFull(DatabaseBusy):
    """The disk of the database is full; nothing was written."""

    status, code, title = 507, "disk_full", "No room on disk"

    def __init__(self, said: str) -> None:
        Refusal.__init__(self, DISK_FULL, retry_after_s=60, log=said)


class DatabaseDamaged(SQLAlchemyError):
    """The database's file was cut or damaged, or is none: to go on with it would lose what it knew."""


def explained(error: DBAPIError) -> DatabaseBusy | DatabaseDamaged | None:
    """What a driver's error says of the database itself; `None` where the statement is at fault."""
    cause = error.orig
    said = f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without the extended part
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DatabaseDamaged(said)
        if code == sqlite3.SQLITE_FULL:
            return DatabaseFull(said)
        return DatabaseBusy(said) if code in _SQLITE_PASSES else None
    if isinstance(cause, psycopg.Error):
        state = cause.sqlstate or ""
        if state == "53100":
            return DatabaseFull(said)
        lost = not state and isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseBusy(said) if lost or state.startswith(_POSTGRES_PASSES) else None
    return None
