"""What was written about a picture is not written again: the same picture and questions reuse the answer."""

import hashlib
import json
import time
from collections.abc import Sequence

import sqlalchemy as sa

from contracts.describe import DescribeRequest, TaskResult
from contracts.models import VLModelInfo
from gateway.database.database import Database, metadata, put

MAX_ENTRIES = 10_000  # some 5 MB
_PRUNE_EVERY = 100  # entries written between two looks at their number
_prompts = sa.Table(
    "prompts", metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("results", sa.JSON, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False, index=True),
)


# Raised when the vision-language service writes other texts with the same model: what was kept is then asked anew.
_WORDING = 3


def cache_key(
    request: DescribeRequest, picture_sha256: str | None, models: Sequence[VLModelInfo], *, any_seed: bool
) -> str:
    """SHA-256 over everything that the answer depends on; `any_seed` leaves the seed out."""
    asked = request.model_dump(mode="json", exclude={"image", "seed"} if any_seed else {"image"})
    writers = sorted(f"{model.id}@{model.revision}" for model in models)
    text = json.dumps(
        {"asked": asked, "picture": picture_sha256, "writers": writers, "wording": _WORDING}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


class PromptCache:
    """Answers by key, the least recently used of which go first. Methods block: call them off the event loop."""

    def __init__(self, database: Database, max_entries: int = MAX_ENTRIES) -> None:
        self._database = database
        self._max_entries = max_entries
        self._written = 0

    def find(self, key: str) -> list[TaskResult] | None:
        """The answer under this key, `None` where there is none."""
        with self._database.writing() as connection:
            row = connection.execute(sa.select(_prompts.c.results).where(_prompts.c.key == key)).first()
            if row is None:
                return None
            connection.execute(_prompts.update().where(_prompts.c.key == key).values(used_at=time.time()))
        return [TaskResult.model_validate(result) for result in row[0]]

    def keep(self, keys: Sequence[str], results: Sequence[TaskResult]) -> None:
        """Remember an answer under each of the keys."""
        values = {"results": [result.model_dump(mode="json") for result in results], "used_at": time.time()}
        with self._database.writing() as connection:
            for key in sorted(keys):  # in one order everywhere: two writers never wait for each other's rows
                put(connection, _prompts, {"key": key, **values})
            self._written += len(keys)
            if self._written >= min(_PRUNE_EVERY, self._max_entries):
                self._written = 0
                self._prune(connection)

    def _prune(self, connection: sa.Connection) -> None:
        # What another process has in hand is left to it: waiting for it here could be waiting in a circle.
        newest_first = _prompts.c.used_at.desc()
        too_many = sa.select(_prompts.c.key).order_by(newest_first).offset(self._max_entries)
        keys = list(connection.scalars(too_many.with_for_update(skip_locked=True)))
        connection.execute(_prompts.delete().where(_prompts.c.key.in_(keys)))
