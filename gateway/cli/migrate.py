"""`stillmotion migrate`: the database as this version wants it, before its processes start."""

from gateway.database.database import normal_url
from gateway.run.dbos_setup import grow
from gateway.settings import GatewaySettings
from gateway.storage.deployment import open_database


def migrate(settings: GatewaySettings) -> str:
    """Make the tables and columns that are missing, ours and the engine's; returns where, without a password.

    Each gateway does so as it starts; growth is additive, so the version before works on beside it.

    Raises:
        SQLAlchemyError, OSError: the database cannot be used now.
    """
    open_database(settings).close()
    url = normal_url(settings.engine_database_url)
    grow(url)
    return url.render_as_string()
