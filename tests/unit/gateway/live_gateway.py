"""A gateway on a socket in a thread of its own, for tests that are not asynchronous; it can be stopped and started."""

import asyncio
import socket
import threading
import time

import httpx
import uvicorn

from gateway.app import create_app
from gateway.settings import GatewaySettings


class LiveGateway:
    """Started on a free port; `client` follows it over restarts."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=30, trust_env=False)
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self._settings), host="127.0.0.1", port=self._port, log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the gateway did not start"
            assert self._thread.is_alive(), "the gateway failed to start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
