"""Bodies on their way in: on disk while they arrive, in memory only while they are worked on, bounded in sum."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.to_thread import run_sync as off_loop
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.refusal import Refusal
from gateway.storage.room import DiskFull, Room, is_full

_SMALL = 64 * 1024  # such a body stays in memory: the number of connections bounds their sum
_PARSED_AT_ONCE = 16 * 1024  # a tenth of a millisecond: less than the way to a thread and back
_LINGER_BYTES = 128 * 1024 * 1024
_LINGER_S = 10.0
T = TypeVar("T")


class BodyTooLarge(Refusal):
    """More bytes than any legal request has; the rest was not read."""

    status, code, title = 413, "body_too_large", "The request is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A request has at most {limit / 2**20:.0f} MiB: send a smaller picture.")


class IntakeFull(Refusal):
    """So many bytes of other requests are on their way that no more fit; nothing was done."""

    status, code, title = 503, "too_much_arrives", "Too much arrives at once"

    def __init__(self) -> None:
        super().__init__(
            "Other requests' pictures take all the room there is: send this one again in 10 s.", retry_after_s=10)


class Intake:
    """Takes bodies in. Used on one event loop.

    `disk_bytes` bounds what lies on disk of all bodies that have not arrived; what would exceed it is refused.
    `memory_bytes` bounds what arrived and is worked on; what would exceed it waits up to `patience_s`.
    """

    def __init__(
        self, folder: Path, room: Room, *, max_image_bytes: int, disk_bytes: int, memory_bytes: int, patience_s: float
    ) -> None:
        self.max_image_bytes = max_image_bytes
        self._folder = folder
        self._room = room
        self._disk_left = disk_bytes
        self._memory = _Budget(memory_bytes)
        self._patience_s = patience_s
        self._large_ones = CapacityLimiter(1)  # parsing takes several times a body's size

    @asynccontextmanager
    async def reading(self, request: Request, limit: int, parse: Callable[[bytes], T]) -> AsyncIterator[T]:
        """What `parse` makes of the whole body of at most `limit` bytes; its bytes count until the block ends.

        Raises:
            BodyTooLarge, IntakeFull, DiskFull: nothing was done.
        """
        spool = _Spool()
        try:
            async for chunk in _limited(request, limit):
                if spool.file is None and spool.size + len(chunk) > _SMALL:
                    await self._begin_file(spool, request)
                await self._put(spool, chunk)
            request.state.body_has_arrived = True
            if spool.file is None:
                data = bytes(spool.start)
                yield parse(data) if len(data) <= _PARSED_AT_ONCE else await off_loop(parse, data)
                return
            async with self._memory.held(spool.size, self._patience_s):
                parsed = await to_thread.run_sync(_parse_file, spool.file, parse, limiter=self._large_ones)
                self._end_file(spool)
                yield parsed
        finally:
            self._end_file(spool)

    async def _begin_file(self, spool: "_Spool", request: Request) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._disk_left:
            raise IntakeFull
        await self._room.check()
        spool.file = await off_loop(_open_spool, self._folder)
        await self._write(spool, bytes(spool.start))

    async def _put(self, spool: "_Spool", chunk: bytes) -> None:
        spool.size += len(chunk)
        if spool.file is None:
            spool.start += chunk
        else:
            await self._write(spool, chunk)

    async def _write(self, spool: "_Spool", chunk: bytes) -> None:
        assert spool.file is not None
        if len(chunk) > self._disk_left:
            raise IntakeFull
        self._disk_left -= len(chunk)
        spool.on_disk += len(chunk)
        try:
            await off_loop(spool.file.write, chunk)
        except OSError as error:
            if is_full(error):
                raise DiskFull(0, len(chunk)) from None
            raise

    def _end_file(self, spool: "_Spool") -> None:
        self._disk_left += spool.on_disk
        spool.on_disk = 0
        if spool.file is not None:
            with suppress(OSError):  # what was not written yet is not wanted any more
                spool.file.close()


class _Spool:
    """What has come of one body."""

    def __init__(self) -> None:
        self.start = bytearray()
        self.file: BinaryIO | None = None
        self.size = 0
        self.on_disk = 0


class _Budget:
    """Bytes that may be held at once; who comes first is served first."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._line = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def held(self, amount: int, patience_s: float) -> AsyncIterator[None]:
        """Hold `amount` for the block; raises `IntakeFull` where there is no room in time."""
        amount = min(amount, self._total)
        try:
            async with asyncio.timeout(patience_s), self._line:
                while self._left < amount:
                    self._given_back.clear()
                    await self._given_back.wait()
                self._left -= amount
        except TimeoutError:
            raise IntakeFull from None
        try:
            yield
        finally:
            self._left += amount
            self._given_back.set()


def _open_spool(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)  # without a name: none is left behind


def _parse_file(file: BinaryIO, parse: Callable[[bytes], T]) -> T:
    file.seek(0)
    return parse(file.read())


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """The body in pieces; a declared length above `limit` is refused before the first one is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise BodyTooLarge(limit)
        yield chunk


def has_arrived(request: Request) -> bool:
    """Whether the whole body was read."""
    return getattr(request.state, "body_has_arrived", False)


class LingeringResponse(Response):
    """Answers at once, then reads on and throws away what the client still sends, within bounds.

    Many clients look at the answer only after they have sent everything: closed on earlier, they report a broken pipe
    in place of the refusal.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b"", "more_body": False})
