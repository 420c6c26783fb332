"""The table of conversations: an owner's last ones, bounded in number and bytes, each for a while after its use."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from contracts.chat import Turn
from contracts.refusal import Refusal
from gateway.database.database import Database, metadata
from gateway.jobs.job import StoredPicture

_conversations = sa.Table(
    "conversations", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False, index=True),
    sa.Column("turns", sa.JSON, nullable=False),
    sa.Column("pictures", sa.JSON, nullable=False),
    sa.Column("prompt", sa.Text),
    sa.Column("job_id", sa.String(64)),
    sa.Column("num_turns", sa.Integer, nullable=False),
    sa.Column("num_bytes", sa.Integer, nullable=False),
    sa.Index("conversations_of_owner", "owner", "used_at"),
)
_LOCK = 6


class ConversationNotFound(Refusal):
    """There is no conversation with this id (any more), or it is another owner's."""

    status, code, title = 404, "conversation_not_found", "No such conversation"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"There is no conversation {conversation_id}, or not any more: begin one without `conversation`.",
            field="conversation")


class ConversationMoved(Refusal):
    """Another message of the same conversation was answered meanwhile; nothing was changed."""

    status, code, title = 409, "conversation_moved", "The conversation has gone on"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(f"Another message of {conversation_id} was answered meanwhile: send yours again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as it is stored. Times are seconds since the epoch."""

    id: str
    owner: str
    created_at: float
    used_at: float
    turns: tuple[Turn, ...]
    pictures: tuple[StoredPicture, ...]
    """In the order of their places in the turns."""
    prompt: str | None
    """The last one that was written in it."""
    job_id: str | None
    """The last video that was made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept: seconds since it was used last; of an owner, how many and how many bytes."""

    keep_s: float
    max_of_owner: int
    max_bytes_of_owner: int


class ConversationStore:
    """The conversations. Methods block for a millisecond or so: call them off the event loop."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self._bounds = bounds

    def get(self, conversation_id: str, owner: str) -> Conversation:
        """The conversation; raises `ConversationNotFound`."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_conversations).where(
                _conversations.c.id == conversation_id, _conversations.c.owner == owner,
                _conversations.c.used_at >= time.time() - self._bounds.keep_s)).one_or_none()
        if row is None:
            raise ConversationNotFound(conversation_id)
        return _record(row)

    def keep(self, said: Conversation, *, before: Conversation | None) -> list[str]:
        """Store it as it is now, in place of `before`; returns the ids of those that it took the place of.

        Raises:
            ConversationNotFound, ConversationMoved: `before` is not what is stored.
        """
        values = _values(said)
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, _LOCK)
            if before is None:
                connection.execute(_conversations.insert().values(values))
            else:
                self._replace(connection, values, before)
            return self._let_go(connection, said)

    def note_job(self, conversation_id: str, job_id: str) -> None:
        """Remember the last video that was made of it."""
        with self._database.writing() as connection:
            connection.execute(_conversations.update().where(_conversations.c.id == conversation_id).values(
                job_id=job_id, used_at=time.time()))

    def remove(self, conversation_id: str, owner: str) -> None:
        """Forget it; raises `ConversationNotFound`."""
        with self._database.writing() as connection:
            gone = connection.execute(_conversations.delete().where(
                _conversations.c.id == conversation_id, _conversations.c.owner == owner))
            if gone.rowcount == 0:
                raise ConversationNotFound(conversation_id)

    def expire(self) -> list[str]:
        """Forget those that nobody has used for long; returns their ids."""
        with self._database.writing() as connection:
            old = list(connection.scalars(sa.select(_conversations.c.id).where(
                _conversations.c.used_at < time.time() - self._bounds.keep_s)))
            connection.execute(_conversations.delete().where(_conversations.c.id.in_(old)))
            return old

    def ids(self) -> set[str]:
        """The id of every conversation of every owner."""
        with self._database.reading() as connection:
            return set(connection.scalars(sa.select(_conversations.c.id)))

    def _replace(self, connection: sa.Connection, values: dict[str, Any], before: Conversation) -> None:
        same = _conversations.c.id == before.id
        stored = connection.scalar(sa.select(_conversations.c.num_turns).where(same).with_for_update())
        if stored is None:
            raise ConversationNotFound(before.id)
        if stored != len(before.turns):
            raise ConversationMoved(before.id)
        connection.execute(_conversations.update().where(same).values(values))

    def _let_go(self, connection: sa.Connection, newest: Conversation) -> list[str]:
        """Forget the owner's oldest ones beyond the bounds, never the newest."""
        rows = connection.execute(
            sa.select(_conversations.c.id, _conversations.c.num_bytes).where(_conversations.c.owner == newest.owner)
            .order_by(_conversations.c.used_at.desc())).all()
        gone: list[str] = []
        total = 0
        for number, (conversation_id, num_bytes) in enumerate(rows):
            total += num_bytes
            beyond = number >= self._bounds.max_of_owner or total > self._bounds.max_bytes_of_owner
            if beyond and conversation_id != newest.id:
                gone.append(conversation_id)
        connection.execute(_conversations.delete().where(_conversations.c.id.in_(gone)))
        return gone


def new_conversation_id() -> str:
    """An id that cannot be guessed."""
    return f"conv_{secrets.token_hex(12)}"


def _values(said: Conversation) -> dict[str, Any]:
    turns = [turn.model_dump(mode="json") for turn in said.turns]
    pictures: Sequence[dict[str, Any]] = [asdict(picture) for picture in said.pictures]
    num_bytes = len(json.dumps(turns)) + sum(picture.num_bytes for picture in said.pictures)
    return {"id": said.id, "owner": said.owner, "created_at": said.created_at, "used_at": said.used_at, "turns": turns,
            "pictures": pictures, "prompt": said.prompt, "job_id": said.job_id, "num_turns": len(turns),
            "num_bytes": num_bytes}


def _record(row: sa.Row[Any]) -> Conversation:
    return Conversation(
        id=row.id, owner=row.owner, created_at=row.created_at, used_at=row.used_at,
        turns=tuple(Turn.model_validate(turn) for turn in row.turns),
        pictures=tuple(StoredPicture(**picture) for picture in row.pictures), prompt=row.prompt, job_id=row.job_id)
