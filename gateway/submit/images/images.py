"""Images of requests: checked in processes of their own, stored, and read again.

Of those processes there are a few for light images and one for heavy ones, so that those never wait for these. They
start when they are first needed, stay, and are replaced when an image was their death.
"""

import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from anyio.to_thread import run_sync as off_loop

from gateway.jobs.job import StoredPicture
from gateway.storage.files import LocalFiles
from gateway.submit.images.check import HEAVY_BYTES, LIGHT_BYTES, CheckedImage, ImageLimits
from gateway.submit.images.decoder import LENGTH_BYTES, DecoderSettings
from gateway.submit.images.fetch import Fetching, fetch_picture
from gateway.submit.images.refusals import DecodersBusy, ImageRefused, too_costly, unreadable

log = logging.getLogger(__name__)

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}
_LIGHT_AT_ONCE: Final = 2
_LIGHT_WAITING: Final = 128
_HEAVY_WAITING: Final = 16
_LIGHT_CPU_S, _HEAVY_CPU_S = 4.0, 20.0
_WALL_PER_CPU: Final = 8  # what a busy machine may make of it
# Beside the image as decoded: its file twice, the reduced one, the encoded one, and the libraries' own.
_ROOM_BYTES: Final = 160 * 2**20
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_", "PYTHON", "LD_", "COV_", "COVERAGE_", "TMPDIR")
_PIECE_BYTES: Final = 2**20
# One arena, for threads would each reserve their own out of the memory limit; large blocks go back when they are free.
_ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Fetches, checks, stores and reads them."""

    files: LocalFiles
    fetching: Fetching
    decoders: "Decoders"

    async def at(self, given: bytes | str) -> CheckedImage:
        """The checked image of these bytes, or at this address.

        Raises:
            ImageRefused: it is none that we take.
            DecodersBusy: too many wait to be checked.
            AddressRefused, FetchFailed: it could not be had from its address.
        """
        return await self.checked(await fetch_picture(given, self.fetching) if isinstance(given, str) else given)

    async def checked(self, image: bytes) -> CheckedImage:
        """The image, decoded and encoded anew in another process. Raises `ImageRefused`, `DecodersBusy`."""
        return await self.decoders.check(image)

    async def read(self, folder_id: str, stored: StoredPicture, warnings: tuple[str, ...]) -> CheckedImage:
        """An image that was checked and stored before, under the id of its job or file."""
        data = await off_loop(self.files.read, folder_id, stored.file)
        return CheckedImage(
            data=data, media_type=stored.media_type, width=stored.width, height=stored.height, warnings=warnings
        )

    async def store(self, folder_id: str, name: str, picture: CheckedImage) -> StoredPicture:
        """Write a checked image to disk under the id of its job or file."""
        file = f"{name}{_SUFFIX[picture.media_type]}"
        await off_loop(self.files.write, folder_id, file, picture.data)
        return StoredPicture(
            file=file, media_type=picture.media_type, num_bytes=len(picture.data),
            sha256=hashlib.sha256(picture.data).hexdigest(), width=picture.width, height=picture.height,
        )


class _Died(Exception):
    """The process ended before it had answered, by a signal or with a status."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Lane:
    """Processes of one kind: at most `at_once` work, at most `waiting` callers stand in line for them."""

    def __init__(self, settings: DecoderSettings, at_once: int, waiting: int) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(at_once)
        self._most, self._present = at_once + waiting, 0
        self._idle: list[asyncio.subprocess.Process] = []

    async def ask(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """What a process answers. Raises `DecodersBusy`, and `_Died` where the image was its death."""
        async with self._place():
            process = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await _exchange(process, data)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise _Died(await process.wait()) from None
            except BaseException:
                await _end(process)
                raise
            self._idle.append(process)
            return answer

    async def aclose(self) -> None:
        """End the idle ones; those at work end with their callers."""
        while self._idle:
            await _end(self._idle.pop())

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._present >= self._most:
            raise DecodersBusy
        self._present += 1
        try:
            async with self._free:
                yield
        finally:
            self._present -= 1

    async def _start(self) -> asyncio.subprocess.Process:
        # Nothing of the environment but what Python needs: keys have no business beside a decoder.
        kept = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.submit.images.decoder", json.dumps(asdict(self._settings)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**kept, **_ALLOCATOR},
            limit=_PIECE_BYTES,
        )


class Decoders:
    """Checks images in processes of their own. Belongs to one event loop; close it with `aclose`."""

    def __init__(self, limits: ImageLimits) -> None:
        self._light = _Lane(_settings(limits, LIGHT_BYTES, _LIGHT_CPU_S, light=True), _LIGHT_AT_ONCE, _LIGHT_WAITING)
        self._heavy = _Lane(_settings(limits, HEAVY_BYTES, _HEAVY_CPU_S, light=False), 1, _HEAVY_WAITING)

    async def check(self, data: bytes) -> CheckedImage:
        """The image as `check_image` makes it.

        Raises:
            ImageRefused: it is none that we take, or it took its decoder too long or too much memory.
            DecodersBusy: too many wait already.
        """
        try:
            head, body = await self._light.ask(data)
            if "too_heavy" in head:
                head, body = await self._heavy.ask(data)
        except _Died as death:
            raise _refusal_of(death.code) from None
        if "too_heavy" in head:
            raise too_costly()
        if "refused" in head:
            raise ImageRefused(str(head["refused"]), str(head["detail"]))
        return CheckedImage(data=body, **{**head, "warnings": tuple(head["warnings"])})

    async def aclose(self) -> None:
        """End the processes."""
        await self._light.aclose()
        await self._heavy.aclose()


def _settings(limits: ImageLimits, memory_bytes: int, cpu_s: float, *, light: bool) -> DecoderSettings:
    return DecoderSettings(
        limits=limits, light=light, memory_bytes=memory_bytes + _ROOM_BYTES, cpu_s=cpu_s, wall_s=cpu_s * _WALL_PER_CPU
    )


def _refusal_of(code: int) -> ImageRefused:
    if -code in (signal.SIGPROF, signal.SIGALRM):
        return too_costly()
    log.warning("a decoding process ended with status %d; its image is refused", code)
    return unreadable()


async def _exchange(process: asyncio.subprocess.Process, data: bytes) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(len(data).to_bytes(LENGTH_BYTES))
    for at in range(0, len(data), _PIECE_BYTES):  # written at once, what the pipe does not take would be copied
        process.stdin.write(data[at : at + _PIECE_BYTES])
        await process.stdin.drain()
    parts = []
    for _ in range(2):
        length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES))
        parts.append(await process.stdout.readexactly(length))
    return json.loads(parts[0]), parts[1]


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
