"""`python -m studio`: serve the page on STUDIO_HOST:STUDIO_PORT."""

import os

import uvicorn

from studio.settings import StudioSettings
from web.logs import configure_logging

# Before Gradio is imported, which reads them: nothing is told to anybody, nothing is looked up.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Read the environment and serve until told to stop."""
    from studio.app import create_app

    os.umask(0o077)  # pictures on their way through are nobody else's to see
    settings = StudioSettings()
    configure_logging("studio", settings.log_level)
    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, log_config=None, access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
