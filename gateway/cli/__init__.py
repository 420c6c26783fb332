"""The `stillmotion` command: serve the three services, generate a video, show a demo. Never imports a model library."""

from gateway.cli.commands import main

__all__ = ["main"]
