"""The HTTP process: holds the folder of the renders, serves, and ends after what it renders."""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn

from video_service.http.app import create_app
from video_service.http.service import WORKER_COMMAND, VideoService
from video_service.queue.files import FolderInUse, RenderFiles
from video_service.settings import VideoSettings
from web.logs import configure_logging
from web.telemetry import configure_tracing

log = logging.getLogger(__name__)

_DRAIN_S = 5
_CANNOT_WRITE = 73  # as sysexits.h names it


class Server(uvicorn.Server):
    """Ends after what it renders, within `drain_s` of a SIGTERM; at once on SIGINT or a second one.

    Tells the app then that it must stop: event streams would hold the orderly shutdown up.
    """

    def __init__(self, config: uvicorn.Config, service: VideoService, drain_s: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_s = drain_s
        self._ends_by: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._drain_s > 0 and self._ends_by is None:
            self._ends_by = time.monotonic() + self._drain_s
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._ends_by is not None:
            self._service.drain()
            if self._service.is_drained or time.monotonic() >= self._ends_by:
                return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.renders.end_followers()
        await super().shutdown(sockets)


def main(worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    os.umask(0o077)  # videos are nobody else's to see
    settings = VideoSettings()
    configure_logging("video_service", settings.log_level)
    configure_tracing("video_service")
    files = RenderFiles(settings.data_dir.resolve() / "video")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.held())
        except FolderInUse as error:
            log.error(str(error))
            return 1
        except OSError as error:
            folder = settings.data_dir.absolute()
            log.error("The data folder %s (STILLMOTION_DATA) cannot be written: %s.", folder, error)
            return _CANNOT_WRITE
        return _serve(settings, files, worker_command)


def _serve(settings: VideoSettings, files: RenderFiles, worker_command: Sequence[str]) -> int:
    app = create_app(settings, files, worker_command=worker_command)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, timeout_graceful_shutdown=_DRAIN_S,
        loop="asyncio", http="h11",  # whatever else is installed
    )
    server = Server(config, app.state.service, settings.drain_s)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has shut down
        server.run()
    return 0 if server.started else 1
