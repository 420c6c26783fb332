"""Room on disk: refused at the door while there is little, so that what was accepted can still be finished."""

import shutil
import time
from pathlib import Path

from gateway.threads import off_loop

_LOOK_AGAIN_S = 0.5  # a busy server writes little in that time, measured by the room that is kept


class DiskFull(Exception):
    """Less than `needed` bytes are free; nothing was stored."""

    def __init__(self, free: int, needed: int) -> None:
        super().__init__(f"{free} of {needed} bytes free")
        self.free = free
        self.needed = needed


class Room:
    """Free space under a folder, looked at now and then. Used on one event loop."""

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        self._folder = folder
        self._needed = min_free_bytes
        self._fresh_until = 0.0
        self._free = 0

    async def check(self) -> None:
        """Raise `DiskFull` where no more should be accepted."""
        if time.monotonic() >= self._fresh_until:
            self._free = (await off_loop(shutil.disk_usage, self._folder)).free
            self._fresh_until = time.monotonic() + _LOOK_AGAIN_S
        if self._free < self._needed:
            raise DiskFull(self._free, self._needed)
