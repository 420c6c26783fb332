"""Room on disk: refused at the door while there is little, so that what was accepted can still be finished."""

import shutil

from gateway.settings import GatewaySettings
from gateway.threads import off_loop


class DiskFull(Exception):
    """Less than `needed` bytes are free; nothing was stored."""

    def __init__(self, free: int, needed: int) -> None:
        super().__init__(f"{free} of {needed} bytes free")
        self.free = free
        self.needed = needed


async def check_room(settings: GatewaySettings) -> None:
    """Raise `DiskFull` where no more should be accepted."""
    free = (await off_loop(shutil.disk_usage, settings.data_dir)).free
    if free < settings.min_free_bytes:
        raise DiskFull(free, settings.min_free_bytes)
