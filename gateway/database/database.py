"""Where the gateway's tables lie: SQLite (WAL) in a file or Postgres by URL, reached by the same statements."""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.database.errors import DatabaseBusy, DatabaseDamaged, explained

metadata = sa.MetaData()
"""Every table of the gateway. One that is declared here is made, and grows its new columns, when a database opens."""

_LOCKS = 0x57111  # the advisory locks of this application, apart from those of others on the same Postgres
_SCHEMA_LOCK = 1
_POOL_SIZE, _POOL_OVERFLOW = 10, 20
_SHARE_A_COMMIT = 64
_LOCKED_S = 30.0
# A server that vanishes sends no farewell: without these a statement waits for it for a quarter of an hour.
_CONNECTION = {
    "connect_timeout": 10, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
T = TypeVar("T")
_probe = sa.Table(
    "probe", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("written_at", sa.Float, nullable=False)
)


class _Piece(Generic[T]):
    """One part of a shared transaction: what is to be done, and what came of it."""

    def __init__(self, work: Callable[[sa.Connection], T]) -> None:
        self._work = work
        self._value: list[T] = []
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self, connection: sa.Connection, *, alone: bool) -> None:
        """Do it; where it fails, undo it and nothing else. `alone`, the transaction's end undoes it."""
        if alone:
            self._value = [self._work(connection)]
            return
        connection.exec_driver_sql("SAVEPOINT piece")
        try:
            self._value = [self._work(connection)]
        except BaseException as error:
            self.error = error
            try:
                connection.exec_driver_sql("ROLLBACK TO piece")
            except SQLAlchemyError:  # a full disk, say, has undone everybody's pieces, and that is what to tell
                raise error from None
        connection.exec_driver_sql("RELEASE piece")

    def result(self) -> T:
        """Its value; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._value[0]


def put(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], **instead: Any) -> None:
    """Insert `row`; where its primary key is there already, set `instead` (by default all of `row`) in its place.

    One statement: two processes that do this at once never collide, as an update and an insert after it would.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(table).values(**row).on_conflict_do_update(
        index_elements=list(table.primary_key), set_=instead or dict(row),
    ))


def page_of(
    query: sa.Select[Any], number: sa.Column[int], limit: int, *, beyond: int | None, oldest_first: bool
) -> sa.Select[Any]:
    """Up to `limit` rows of `query` in the order of `number`, those that follow `beyond`."""
    query = query.order_by(number if oldest_first else number.desc()).limit(limit)
    if beyond is None:
        return query
    return query.where(number > beyond if oldest_first else number < beyond)


class Database:
    """An open database. Its methods block for a millisecond or so: call them off the event loop.

    Opening it raises `DatabaseDamaged` or `DatabaseBusy` where it cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = normal_url(url)
        self._pieces: deque[_Piece[Any]] = deque()
        self.shared = self.url.get_backend_name() == "postgresql"
        """Whether processes of other machines may work on it at the same time."""
        # SQLite lets one write at a time and has the others look again and again; here they stand in line for it.
        self._writer = threading.Lock()
        if self.shared:
            self.engine = sa.create_engine(
                self.url, pool_size=_POOL_SIZE, max_overflow=_POOL_OVERFLOW, pool_pre_ping=True,
                connect_args=_CONNECTION,
            )
        else:
            make_private(self.url)
            refuse_damaged(self.url)
            self.engine = sa.create_engine(self.url, connect_args={"timeout": _LOCKED_S})
            event.listen(self.engine, "connect", _prepare_connection)
            event.listen(self.engine, "begin", _begin)
        event.listen(self.engine, "handle_error", _explain)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write. On SQLite it has the only write lock from its first moment on; on Postgres
        rows that are read to be changed are locked by `with_for_update` (which SQLite leaves out)."""
        with self._in_line(), self._connected() as connection, connection.begin():
            yield connection

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """The result of `work` in a transaction that may write, once it is on disk; raises what it raises, and then
        nothing of it is there. On SQLite, those who come while others write share the next commit."""
        if self.shared:
            with self.writing() as connection:
                return work(connection)
        mine = _Piece(work)
        self._pieces.append(mine)
        try:
            with self._in_line():
                while not mine.done.is_set():
                    self._write_all()
        except DatabaseBusy:
            with suppress(ValueError):
                self._pieces.remove(mine)  # else it would be written after its caller was told that it is not
                raise
            mine.done.wait()  # somebody is writing it
        return mine.result()

    def _write_all(self) -> None:
        """Write what all who wait want written, in one transaction, of which each has a part of its own."""
        pieces = [self._pieces.popleft() for _ in range(min(len(self._pieces), _SHARE_A_COMMIT))]
        try:
            with self._connected() as connection, connection.begin():
                for piece in pieces:
                    piece.run(connection, alone=len(pieces) == 1)
        except BaseException as error:
            for piece in pieces:
                piece.error = error  # no commit, so nothing of anybody's
        finally:
            for piece in pieces:
                piece.done.set()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self._connected() as connection, connection.execution_options(reads_only=True).begin():
            yield connection

    def check_writable(self) -> None:
        """Raise `SQLAlchemyError` where a write would fail: by a write, for a read-only disk lets transactions begin.
        """
        with self.writing() as connection:
            put(connection, _probe, {"id": 1, "written_at": time.time()})

    @contextmanager
    def _in_line(self) -> Iterator[None]:
        """On SQLite, until this is the only writer of the process; raises `DatabaseBusy` where the line stands still.
        """
        if self.shared:
            yield
            return
        if not self._writer.acquire(timeout=_LOCKED_S):
            raise DatabaseBusy(f"others have been writing for {_LOCKED_S:g} s")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            connection = self.engine.connect()
        except PoolTimeout as error:
            raise DatabaseBusy(str(error)) from error
        with connection:
            yield connection

    def one_at_a_time(self, connection: sa.Connection, lock: int) -> None:
        """Wait until no other transaction holds `lock`, and hold it to the end of this one. SQLite's writers always do.
        """
        if self.shared:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, lock)))

    def _prepare(self) -> None:
        """Make what is missing. Growth is additive, so an older build works on beside a newer one.

        Raises:
            ValueError: a new column has neither a server default nor may it be null.
        """
        with self.writing() as connection:
            self.one_at_a_time(connection, _SCHEMA_LOCK)
            metadata.create_all(connection)
            for table in metadata.sorted_tables:
                _grow(connection, table)


def normal_url(url: str) -> sa.URL:
    """The URL with the driver that is installed."""
    if url.startswith("postgres://"):  # the short form that many hosts hand out
        url = url.replace("postgres://", "postgresql://", 1)
    parsed = sa.make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.get_backend_name() == "postgresql" else parsed


def make_private(url: sa.URL) -> None:
    """Make a SQLite database's file, and its folder, its owner's alone; SQLite's own files beside it take after it."""
    path = Path(url.database or "")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and file.stat().st_mode & 0o077:  # from before, or from a copy
            file.chmod(0o600)


def refuse_damaged(url: sa.URL) -> None:
    """Raise `DatabaseDamaged` where a SQLite file was cut or is none; SQLite itself finds out when it reads there."""
    path = Path(url.database or "")
    connection = sqlite3.connect(path, timeout=_LOCKED_S)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            return  # busy, say: whoever opens it next is told
        found = str(error)
    finally:
        connection.close()
    if found != "ok":
        raise DatabaseDamaged(f"{path}: {found}")


def _grow(connection: sa.Connection, table: sa.Table) -> None:
    present = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name in present:
            continue
        if not column.nullable and column.server_default is None:
            raise ValueError(f"{table.name}.{column.name} is new: it needs a server default, or must be nullable")
        definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
        connection.execute(sa.DDL("ALTER TABLE %(table)s ADD COLUMN " + str(definition).replace("%", "%%"),
                                  {"table": table.name}))
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def _prepare_connection(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin by itself: `_begin` does
    for pragma in (f"busy_timeout={_LOCKED_S * 1000:.0f}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock before it reads, so that what it read still holds when it writes.
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _explain(context: sa.engine.ExceptionContext) -> BaseException | None:
    error = context.sqlalchemy_exception
    return explained(error) if isinstance(error, DBAPIError) else None
