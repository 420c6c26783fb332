"""API keys: the secret is shown once, when a key is made; what is stored is its hash and what the key may do."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import limits
import sqlalchemy as sa

from gateway.database.database import Database, metadata

PREFIX = "sm_"
MAX_NAME_CHARS = 100
LOCAL_OWNER = "local"
"""Owns everything that is made where no keys are needed."""
_SHOWN_CHARS = len(PREFIX) + 4
_USE_NOTED_EVERY_S = 60.0  # a write for each request would cost more than the request

_keys = sa.Table(
    "api_keys", metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(MAX_NAME_CHARS), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("starts_with", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("last_used_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("rate_limit", sa.String(64)),
    sa.Column("max_jobs", sa.Integer),
    sa.Column("best_priority", sa.Integer),
)


class KeyNotFound(LookupError):
    """No key, or more than one that is not revoked, goes by this id or name."""


class KeyNameRefused(ValueError):
    """A key of this name is in use, or the name is empty or too long; names tell keys apart."""


class RateNotReadable(ValueError):
    """A rate is not of the form `30/minute`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may do at most; `None` is no limit beyond the deployment's own.

    `rate` counts requests for work, such as `30/minute`; `max_jobs` counts jobs that wait or run;
    `best_priority` is the smallest priority number its jobs may have.
    """

    rate: str | None = None
    max_jobs: int | None = None
    best_priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as it is stored; times are seconds since the epoch. `id` owns what is made with the key."""

    id: str
    name: str
    starts_with: str
    created_at: float
    last_used_at: float | None
    revoked_at: float | None
    limits: KeyLimits


class KeyStore:
    """Keys in the jobs' database. Methods block for a millisecond or so: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, key_limits: KeyLimits) -> tuple[KeyRecord, str]:
        """Make a key; returns it with its secret, which nothing can show again.

        Raises:
            KeyNameRefused: a key that is not revoked has this name, or no key may have it.
            RateNotReadable: the rate limit cannot be read.
        """
        if key_limits.rate is not None:
            parse_rate(key_limits.rate)
        if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise KeyNameRefused(f"A key's name has 1 to {MAX_NAME_CHARS} printable characters.")
        secret = PREFIX + secrets.token_urlsafe(32)
        key_id = f"key_{secrets.token_hex(8)}"
        with self._database.writing() as connection:
            taken = sa.select(_keys.c.id).where(_keys.c.name == name, _keys.c.revoked_at.is_(None))
            if connection.execute(taken).first():
                raise KeyNameRefused(f"A key named {name!r} is in use: choose another name, or revoke it first.")
            connection.execute(_keys.insert().values(
                id=key_id, name=name, hash=_hash(secret), starts_with=secret[:_SHOWN_CHARS], created_at=time.time(),
                rate_limit=key_limits.rate, max_jobs=key_limits.max_jobs, best_priority=key_limits.best_priority,
            ))
            row = connection.execute(sa.select(_keys).where(_keys.c.id == key_id)).one()
        return _record(row), secret

    def find(self, secret: str) -> KeyRecord | None:
        """The key with this secret, unless it is revoked."""
        # A fast hash suffices: the secret has 256 random bits, so there is nothing to guess.
        query = sa.select(_keys).where(_keys.c.hash == _hash(secret), _keys.c.revoked_at.is_(None))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)

    def note_use(self, key: KeyRecord) -> None:
        """Remember that the key was used, to the minute."""
        now = time.time()
        if key.last_used_at is not None and now - key.last_used_at < _USE_NOTED_EVERY_S:
            return
        with self._database.writing() as connection:
            connection.execute(_keys.update().where(_keys.c.id == key.id).values(last_used_at=now))

    def all(self) -> list[KeyRecord]:
        """Every key, the revoked ones too, oldest first."""
        with self._database.reading() as connection:
            return [_record(row) for row in connection.execute(sa.select(_keys).order_by(_keys.c.created_at))]

    def any_usable(self) -> bool:
        """Whether there is a key that is not revoked."""
        query = sa.select(_keys.c.id).where(_keys.c.revoked_at.is_(None)).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def one(self, id_or_name: str) -> KeyRecord:
        """The usable key of this id or name, or `KeyNotFound`."""
        wanted = sa.or_(_keys.c.id == id_or_name, _keys.c.name == id_or_name)
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_keys).where(wanted, _keys.c.revoked_at.is_(None))).all()
        if len(rows) != 1:
            raise KeyNotFound(f"No usable key goes by {id_or_name!r}; `stillmotion keys list` shows those there are.")
        return _record(rows[0])

    def revoke(self, id_or_name: str) -> KeyRecord:
        """Let the key open nothing from now on; what was made with it stays its own. Raises `KeyNotFound`."""
        key = self.one(id_or_name)
        with self._database.writing() as connection:
            connection.execute(_keys.update().where(_keys.c.id == key.id).values(revoked_at=time.time()))
        return key


def parse_rate(rate: str) -> limits.RateLimitItem:
    """Read `30/minute`, `5 per second`, `1000/day`; raises `RateNotReadable`."""
    try:
        return limits.parse(rate)
    except ValueError:
        raise RateNotReadable(f"{rate!r} is no rate: write one such as 30/minute, 5/second or 1000/day.") from None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _record(row: sa.Row[Any]) -> KeyRecord:
    return KeyRecord(
        id=row.id, name=row.name, starts_with=row.starts_with, created_at=row.created_at,
        last_used_at=row.last_used_at, revoked_at=row.revoked_at,
        limits=KeyLimits(rate=row.rate_limit, max_jobs=row.max_jobs, best_priority=row.best_priority),
    )
