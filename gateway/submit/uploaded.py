"""The table of uploaded files: checked pictures that requests refer to by id."""

import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from contracts.errors import FieldProblem
from contracts.refusal import Refusal
from gateway.database.database import Database, metadata, page_of
from gateway.jobs.job import StoredPicture

_files = sa.Table(
    "files", metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("filename", sa.String(255), nullable=False),
    sa.Column("purpose", sa.String(64), nullable=False),
    sa.Column("picture", sa.JSON, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Index("files_of_owner", "owner", "sequence"),
    sqlite_autoincrement=True,
)
_FILES_LOCK = 4


class UploadNotFound(Refusal):
    """There is no uploaded file with this id, or it is another owner's."""

    status, code, title = 404, "file_not_found", "No such file"

    def __init__(self, file_id: str) -> None:
        super().__init__(
            f"There is no file {file_id}; POST /v1/files makes one, GET /v1/files lists those that there are.",
            errors=[FieldProblem(field="file_id", message="There is no such file")])


class TooManyFiles(Refusal):
    """An owner keeps as many files as may be kept; nothing was added."""

    status, code, title = 409, "too_many_files", "Too many files"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} files are kept, which is all that may: delete one (DELETE /v1/files/{{id}}) first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """A checked picture, already on disk, as it enters the table."""

    id: str
    owner: str
    filename: str
    purpose: str
    picture: StoredPicture
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord(NewUpload):
    """An uploaded file as it is stored. `created_at` in seconds since the epoch; `sequence` orders by arrival."""

    sequence: int
    created_at: float


class UploadStore:
    """The uploaded files. Methods block for a millisecond or so: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, upload: NewUpload, max_of_owner: int) -> UploadRecord:
        """Store it; raises `TooManyFiles` where its owner has `max_of_owner` already."""
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, _FILES_LOCK)
            kept = sa.select(sa.func.count()).where(_files.c.owner == upload.owner)
            if (connection.scalar(kept) or 0) >= max_of_owner:
                raise TooManyFiles(max_of_owner)
            connection.execute(_files.insert().values(
                id=upload.id, owner=upload.owner, created_at=time.time(), filename=upload.filename,
                purpose=upload.purpose, picture=asdict(upload.picture), warnings=list(upload.warnings),
            ))
            return _one(connection, upload.id, upload.owner)

    def get(self, file_id: str, owner: str) -> UploadRecord:
        """The file; raises `UploadNotFound`."""
        with self._database.reading() as connection:
            return _one(connection, file_id, owner)

    def page(
        self, limit: int, owner: str, *, beyond: int | None, oldest_first: bool, purpose: str | None = None,
    ) -> list[UploadRecord]:
        """Up to `limit` files of `owner`, in this order, that follow the sequence number `beyond`."""
        query = sa.select(_files).where(_files.c.owner == owner)
        query = page_of(query, _files.c.sequence, limit, beyond=beyond, oldest_first=oldest_first)
        if purpose is not None:
            query = query.where(_files.c.purpose == purpose)
        with self._database.reading() as connection:
            return [_record(row) for row in connection.execute(query)]

    def remove(self, file_id: str, owner: str) -> None:
        """Forget the file; raises `UploadNotFound`."""
        with self._database.writing() as connection:
            _one(connection, file_id, owner)
            connection.execute(_files.delete().where(_files.c.id == file_id))

    def ids(self) -> set[str]:
        """The id of every file of every owner."""
        with self._database.reading() as connection:
            return set(connection.scalars(sa.select(_files.c.id)))


def new_file_id() -> str:
    """An id that cannot be guessed."""
    return f"file_{secrets.token_hex(12)}"


def _one(connection: sa.Connection, file_id: str, owner: str) -> UploadRecord:
    row = connection.execute(sa.select(_files).where(_files.c.id == file_id, _files.c.owner == owner)).one_or_none()
    if row is None:
        raise UploadNotFound(file_id)
    return _record(row)


def _record(row: sa.Row[Any]) -> UploadRecord:
    values = row._asdict()
    values["picture"] = StoredPicture(**values["picture"])
    values["warnings"] = tuple(values["warnings"])
    return UploadRecord(**values)
