"""Room on disk: refused at the door while there is little, so that what was accepted can still be finished."""

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from anyio.to_thread import run_sync as off_loop

from contracts.refusal import Refusal
from gateway.database.errors import DatabaseFull

_LOOK_AGAIN_S = 0.5  # a busy server writes little in that time, measured by the room that is kept


class DiskFull(Refusal):
    """Less than `needed` bytes are free; nothing was stored."""

    status, code, title = 507, "disk_full", "No room on disk"

    def __init__(self, free: int, needed: int) -> None:
        super().__init__(
            f"{free // 2**20} MiB are free where {needed // 2**20} MiB are needed: delete jobs that are done with, or "
            "give the server more space.", retry_after_s=60)


class Reserve:
    """Space that a file holds so that jobs can be canceled and removed on a disk that is full. Methods block."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        self._num_bytes = num_bytes

    def fill(self) -> None:
        """Hold the space, unless it is held or the disk has not some more than that."""
        if not self._num_bytes or self._path.exists():
            return
        if shutil.disk_usage(self._path.parent).free < 2 * self._num_bytes:
            return
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._num_bytes)
        except OSError:  # full after all, or no such thing on this file system
            self.give_up()
        finally:
            os.close(handle)

    def give_up(self) -> bool:
        """Give it to who needs it; false where none was held."""
        with suppress(FileNotFoundError):
            self._path.unlink()
            return True
        return False


def is_full(error: Exception) -> bool:
    """Whether this came of a disk, or a database's disk, without room."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, DatabaseFull)


class Room:
    """Free space under a folder, looked at now and then. Used on one event loop."""

    def __init__(self, folder: Path, min_free_bytes: int, reserve: Reserve) -> None:
        self._folder = folder
        self._reserve = reserve
        self._needed = min_free_bytes
        self._fresh_until = 0.0
        self._free = 0

    async def check(self) -> None:
        """Raise `DiskFull` where no more should be accepted."""
        if time.monotonic() >= self._fresh_until:
            self._free = (await off_loop(shutil.disk_usage, self._folder)).free
            self._fresh_until = time.monotonic() + _LOOK_AGAIN_S
            if self._free >= self._needed:
                await off_loop(self._reserve.fill)  # again, where it was given up
        if self._free < self._needed:
            raise DiskFull(self._free, self._needed)
