"""An executor's id belongs to one living process: a lock that ends with the process that holds it."""

from contextlib import suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from gateway.database.database import Database

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
