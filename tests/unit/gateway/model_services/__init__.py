"""The two model services as small real HTTP servers that follow the contracts and do as they are told."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from tests.unit.gateway.model_services.script import VIDEO_MODEL, VL_MODEL, Script, last_frame_bytes, video_bytes
from tests.unit.gateway.model_services.video import video_app
from tests.unit.gateway.model_services.vl import vl_app

__all__ = [
    "VIDEO_MODEL", "VL_MODEL", "Script", "Services", "last_frame_bytes", "running_services", "video_app", "video_bytes",
]


@dataclass(frozen=True)
class Services:
    """Where both run, and their script."""

    vl_url: str
    video_url: str
    script: Script


@contextmanager
def running_services() -> Iterator[Services]:
    """Both services on free loopback ports, in a thread of their own."""
    script = Script()
    servers, sockets = [], []
    for app in (vl_app(script), video_app(script)):
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        sockets.append(bound)
        servers.append(uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off")))

    async def serve() -> None:
        await asyncio.gather(*(
            server.serve(sockets=[bound]) for server, bound in zip(servers, sockets, strict=True)
        ))

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        urls = [f"http://127.0.0.1:{bound.getsockname()[1]}" for bound in sockets]
        yield Services(vl_url=urls[0], video_url=urls[1], script=script)
    finally:
        for server in servers:
            server.should_exit = server.force_exit = True
        thread.join(timeout=60)
