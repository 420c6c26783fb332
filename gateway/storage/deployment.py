"""Which deployment a database is: an id drawn once, which goes where the database goes, copies and backups too."""

import secrets
from pathlib import Path

import sqlalchemy as sa

from gateway.database.database import Database, DatabaseDamaged, make_private, metadata, normal_url, put, refuse_damaged
from gateway.settings import GatewaySettings
from gateway.storage.files import OWNERS, make_folder

_deployment = sa.Table(
    "deployment", metadata, sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
)


def deployment_of(database: Database) -> str:
    """The database's id. Blocking."""
    query = sa.select(_deployment.c.name)
    with database.reading() as connection:
        if (known := connection.scalar(query)) is not None:
            return known
    with database.writing() as connection:
        put(connection, _deployment, {"id": 1, "name": f"dep_{secrets.token_hex(12)}"}, id=1)  # the first one stays
        return str(connection.scalar(query))


def open_database(settings: GatewaySettings) -> Database:
    """The gateway's database, once the durable engine's beside it is known to be sound, too. Blocking.

    Raises:
        DatabaseDamaged: the file of one was cut, or is none.
        DatabaseBusy, OSError: it cannot be opened or written to now.
    """
    make_folder(settings.state_dir)
    if settings.database_url is None:
        _refuse_emptied(settings.jobs_database_file, settings.state_dir / "files")
        engine = normal_url(settings.engine_database_url)
        make_private(engine)
        refuse_damaged(engine)
    return Database(settings.jobs_database_url)


def _refuse_emptied(database: Path, files: Path) -> None:
    """Raise `DatabaseDamaged` where a SQLite file has no byte left though files were kept for it: it was cut.

    SQLite would take it for a new one. A start that was killed leaves such a file, too, but before any mark of files.
    """
    wal = database.with_name(f"{database.name}-wal")
    if not database.exists() or database.stat().st_size or (wal.exists() and wal.stat().st_size):
        return
    if any((files / OWNERS).glob("*")):
        raise DatabaseDamaged(f"{database} is empty, though it was not: bring it back, or remove it to begin anew")
