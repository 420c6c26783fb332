"""`python -m gateway`: the public HTTP service."""

import logging
import sys

import uvicorn

from gateway.app import create_app
from gateway.auth.keys import KeyStore
from gateway.database import Database
from gateway.settings import GatewaySettings
from web.logs import configure_logging

_SHUTDOWN_S = 3  # open event streams never end by themselves; their clients reconnect
_NOT_CONFIGURED = 78  # EX_CONFIG of sysexits.h

log = logging.getLogger("gateway")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = GatewaySettings()
    configure_logging("gateway", settings.log_level)
    if not _has_a_key_if_needed(settings):
        log.critical(
            "This gateway would listen on %s, beyond this machine, where every caller needs a key, and there is none. "
            "Make one with `stillmotion keys create NAME`, or listen on 127.0.0.1 (GATEWAY_HOST), or set "
            "GATEWAY_KEYS=off to serve all who can reach it, or GATEWAY_KEYS=required to start and make keys later.",
            settings.host,
        )
        sys.exit(_NOT_CONFIGURED)
    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, log_config=None,
        timeout_graceful_shutdown=_SHUTDOWN_S, server_header=False,
    )


def _has_a_key_if_needed(settings: GatewaySettings) -> bool:
    """Said outright, `required` may start without: a container must run before a key can be made inside it."""
    if settings.keys != "auto" or not settings.keys_required:
        return True
    database = Database(settings.jobs_database_url)
    try:
        return KeyStore(database).any_usable()
    finally:
        database.close()


if __name__ == "__main__":
    main()
