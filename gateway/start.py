"""What `python -m gateway` does: look whether this process can serve, and serve."""

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError
from uvicorn.config import STARTUP_FAILURE

from gateway.app import create_app
from gateway.auth.keys import KeyStore
from gateway.database.errors import DatabaseBusy, DatabaseDamaged
from gateway.edge.server import connections_within, make_server, raise_descriptor_limit
from gateway.settings import GatewaySettings
from gateway.storage.deployment import open_database
from gateway.storage.files import make_folder
from gateway.storage.provenance.certificate import CertificateUnusable, open_certificate
from web.logs import configure_logging
from web.telemetry import configure_tracing

_NOT_CONFIGURED, _TRY_LATER, _CANNOT_WRITE, _DAMAGED = 78, 75, 73, 65  # as sysexits.h names them

log = logging.getLogger("gateway")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    os.umask(0o077)  # what is written here is nobody else's to read, whoever writes it for us
    settings = GatewaySettings()
    configure_logging("gateway", settings.log_level)
    configure_tracing("gateway")
    check_start(settings)
    server = make_server(
        create_app(settings), host=settings.host, port=settings.port,
        max_connections=connections_within(raise_descriptor_limit(), settings.max_connections),
    )
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def check_start(settings: GatewaySettings) -> None:
    """End the process, with one sentence, where it could not serve."""
    folder = settings.data_dir.absolute()
    try:
        make_folder(settings.state_dir)  # as root, only a write tells
        (settings.state_dir / ".probe").touch()
        (settings.state_dir / ".probe").unlink()
    except OSError as error:
        _end(_CANNOT_WRITE, f"The data folder {folder} (STILLMOTION_DATA) cannot be written: {error}.")
    try:
        database = open_database(settings)
    except DatabaseDamaged as error:
        _end(_DAMAGED, f"A database was cut or damaged, and nothing was touched: restore it ({error}).")
    except DatabaseBusy as error:
        _end(_TRY_LATER, f"The database cannot be used now: {error}.")
    except (SQLAlchemyError, OSError) as error:
        _end(_NOT_CONFIGURED, f"The database cannot be opened: {getattr(error, 'orig', None) or error}.")
    try:
        # Said outright, `required` may start without: a container must run before a key can be made inside it.
        if settings.keys == "auto" and settings.keys_required and not KeyStore(database).any_usable():
            _end(
                _NOT_CONFIGURED,
                f"This gateway would listen on {settings.host}, beyond this machine, where every caller needs a key, "
                f"and there is none. Make one with `STILLMOTION_DATA={folder} stillmotion keys create NAME`, or listen "
                "on 127.0.0.1 (GATEWAY_HOST), or set GATEWAY_KEYS=off to serve all who can reach it, or "
                "GATEWAY_KEYS=required to start and make keys later.",
            )
    finally:
        database.close()
    try:
        if settings.provenance:
            open_certificate(settings.c2pa_cert, settings.c2pa_key, settings.state_dir)
    except CertificateUnusable as error:
        _end(_NOT_CONFIGURED, str(error))


def _end(status: int, sentence: str) -> NoReturn:
    log.critical(sentence)
    sys.exit(status)
