"""Which gateway processes live: each signs its row again and again; one that stops is found dead by the others.

The row says who may hold jobs, not whether a process exists: one that hangs, or has lost the database, counts as dead
and learns so when it signs again. The clock is the database's: the machines' clocks need not agree. An id belongs to
one living process, by a lock that ends with it.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from gateway.database.database import Database, metadata
from gateway.jobs.queue import take_back, takers

_executors = sa.Table(
    "executors", metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("life", sa.String(16), nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)
_EXECUTORS_LOCK = 3
_ASK_AGAIN_S = 0.2
_ENDING_S = 5.0  # a process that was told to stop may need so long
_ID_LOCK = "hashtextextended('stillmotion executor ' || :id, 0)"
# A machine that vanishes sends no farewell: without these the server would keep its lock for hours.
_KEEPALIVES_S = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 2}


class Identity(Protocol):
    """The lock on one executor id. Blocking."""

    def held(self) -> bool:
        """Whether this process has the id; takes it where nobody has."""
        ...

    def let_go(self) -> None:
        """Give it back, as the end of the process does."""
        ...


class FileIdentity:
    """A locked file in the data folder: for a database that lies there, too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)

    def held(self) -> bool:
        """See `Identity`."""
        if not self._lock.is_locked:
            with suppress(Timeout):
                self._lock.acquire()
        return self._lock.is_locked

    def let_go(self) -> None:
        """See `Identity`."""
        self._lock.release()


class SessionIdentity:
    """An advisory lock of a Postgres session of its own, taken again after a lost connection."""

    def __init__(self, database: Database, executor_id: str) -> None:
        self._engine = database.engine
        self._executor_id = executor_id
        self._session: sa.Connection | None = None

    def held(self) -> bool:
        """See `Identity`; raises `DatabaseBusy` where the server cannot be reached."""
        if self._session is not None:
            try:
                self._session.execute(sa.text("SELECT 1"))
                return True
            except SQLAlchemyError:
                self.let_go()
        session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._session = session
        for name, value in _KEEPALIVES_S.items():
            session.execute(sa.text(f"SET {name} = {value}"))
        if session.scalar(sa.text(f"SELECT pg_try_advisory_lock({_ID_LOCK})"), {"id": self._executor_id}):
            return True
        self.let_go()
        return False

    def let_go(self) -> None:
        """See `Identity`."""
        if self._session is not None:
            self._session.invalidate()  # closes the session itself and does not keep it for others, with the lock
            self._session.close()
            self._session = None


class StateInUse(Exception):
    """Another live process has this executor id: both would run the same jobs."""

    def __init__(self, executor_id: str, place: str) -> None:
        super().__init__(
            f"Another gateway works as executor {executor_id!r} in {place}: stop it, or set GATEWAY_EXECUTOR_ID "
            "to another name here (with SQLite: STILLMOTION_DATA to another folder)."
        )


class Executors:
    """This process among the others. Methods block: call them off the event loop, one at a time."""

    def __init__(
        self, database: Database, identity: Identity, executor_id: str, *, place: str, dead_after_s: float
    ) -> None:
        self._database = database
        self._identity = identity
        self._id = executor_id
        self._place = place
        self._dead_after_s = dead_after_s
        self._life = ""

    @property
    def patience_s(self) -> float:
        """How long the process before this one may keep its id: a machine that vanished, for as long as it may be
        silent; one on this disk only until it has ended."""
        return _ENDING_S + (self._dead_after_s if self._database.shared else 0.0)

    def enter(self, wait_s: float) -> None:
        """Take this executor's id and begin to count as living.

        Raises:
            StateInUse: another process still has the id after `wait_s`.
        """
        deadline = time.monotonic() + wait_s  # the process before this one may just be ending
        while not self._identity.held():
            if time.monotonic() > deadline:
                raise StateInUse(self._id, self._place)
            time.sleep(_ASK_AGAIN_S)
        self._sign_in()
        with self._database.writing() as connection:
            take_back(connection, {self._id})  # what the process before this one had no time to begin

    def sign(self) -> bool:
        """Say that this process lives. False: the others had given it up and carry its jobs on; it counts again now.

        Raises:
            StateInUse: another process has this executor's id now.
        """
        if not self._identity.held():
            raise StateInUse(self._id, self._place)
        with self._database.writing() as connection:
            if connection.execute(_executors.update().where(self._mine()).values(seen_at=self._now())).rowcount:
                return True
        self._sign_in()
        return False

    def take_over(self, stranded: Callable[[set[str]], set[str]], carry_on: Callable[[set[str]], None]) -> set[str]:
        """Have the jobs of the dead carried on; returns whose they were.

        `stranded(living)` names the executors that hold jobs and do not live; `carry_on(dead)` frees their jobs. Nobody
        enters meanwhile: an executor that comes back finds its jobs taken, or still its own, never both.
        """
        with self._database.reading() as connection:
            silent = connection.execute(sa.select(_executors.c.id).where(~self._lives()).limit(1)).first()
            living = set(connection.scalars(sa.select(_executors.c.id).where(self._lives())))
            taken_by = takers(connection)
        if silent is None and taken_by <= living and not stranded(living):
            return set()
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, _EXECUTORS_LOCK)
            living = set(connection.scalars(sa.select(_executors.c.id).where(self._lives())))
            dead = stranded(living) | (takers(connection) - living)
            if dead:
                carry_on(dead)
                take_back(connection, dead)
            connection.execute(_executors.delete().where(~self._lives(), ~self._mine()))
        return dead

    def alone(self) -> bool:
        """Whether no other executor lives."""
        query = sa.select(_executors.c.id).where(self._lives(), ~self._mine()).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is None

    def leave(self) -> None:
        """Stop counting as living: what this process still holds is the others' at once."""
        try:
            with self._database.writing() as connection:
                connection.execute(_executors.update().where(self._mine()).values(seen_at=0.0))
        finally:
            self._identity.let_go()

    def _sign_in(self) -> None:
        self._life = secrets.token_hex(8)
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, _EXECUTORS_LOCK)
            connection.execute(_executors.delete().where(_executors.c.id == self._id))
            connection.execute(_executors.insert().values(
                id=self._id, life=self._life, seen_at=self._now(),
            ))

    def _mine(self) -> sa.ColumnElement[bool]:
        return sa.and_(_executors.c.id == self._id, _executors.c.life == self._life)

    def _lives(self) -> sa.ColumnElement[bool]:
        return _executors.c.seen_at >= self._now() - self._dead_after_s

    def _now(self) -> sa.ColumnElement[float]:
        if self._database.shared:
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float)
        return sa.literal(time.time())
