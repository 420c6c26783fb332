"""A line to a server that can be cut and mended, as when that server is away: connections end, new ones are refused."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit


class Relay:
    """Hands on TCP connections to `target` from a port of its own, in a thread of its own."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None, "the target names a host"
        assert parts.port is not None, "the target names a port"
        self._target = (parts.hostname, parts.port)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = target.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self.port}", 1)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def mend(self) -> None:
        """Connections are taken from now on."""
        self._do(self._listen())

    def cut(self) -> None:
        """Every connection ends, and none is taken."""
        self._do(self._hang_up())

    def close(self) -> None:
        """Cut it for good."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._hand_on(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            with suppress(OSError):
                target_reader, target_writer = await asyncio.open_connection(*self._target)
                ends.append(target_writer)
                await asyncio.gather(_copy(reader, target_writer), _copy(target_reader, writer))
        finally:
            for end in ends:
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


@contextmanager
def relay_to(target: str) -> Iterator[Relay]:
    """A whole line, gone with the block."""
    line = Relay(target)
    line.mend()
    try:
        yield line
    finally:
        line.close()
