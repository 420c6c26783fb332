"""`python -m gateway`: the public HTTP service."""

import uvicorn

from gateway.app import create_app
from gateway.settings import GatewaySettings
from wire.logs import configure_logging

_SHUTDOWN_S = 3  # open event streams never end by themselves; their clients reconnect


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = GatewaySettings()
    configure_logging("gateway", settings.log_level)
    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, log_config=None,
        timeout_graceful_shutdown=_SHUTDOWN_S, server_header=False,
    )


if __name__ == "__main__":
    main()
