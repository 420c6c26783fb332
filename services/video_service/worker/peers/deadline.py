"""What other ranks, and the devices, are waited for: not for ever."""

import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from web.worker.errors import DeviceBroken

DEADLINE_S = 300.0
"""What one exchange may take: it waits while another rank makes its kernels ready at the first step of a size."""
_LOOK_S = 0.2


class Event(Protocol):
    """As CUDA's: recorded behind what a device was given."""

    def query(self) -> bool:
        """Whether the device has done all before it."""
        ...


class StepClock:
    """Calls `on_late` once a device needs longer than `limit_s` from one event to the next."""

    def __init__(self, limit_s: float, on_late: Callable[[str], None]) -> None:
        self._limit_s, self._on_late = limit_s, on_late
        self._events: queue.SimpleQueue[tuple[Event, float]] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="steps", daemon=True).start()

    def follow(self, event: Event) -> None:
        """From now on it has so long, or from the end of the one before: a host may be many steps ahead."""
        self._events.put((event, time.monotonic()))

    def _watch(self) -> None:
        ended_s = 0.0
        while True:
            event, told_s = self._events.get()
            began_s = max(told_s, ended_s)
            while not event.query():
                if time.monotonic() - began_s > self._limit_s:
                    self._on_late(f"a step did not end within {self._limit_s:g} s")
                    return
                time.sleep(min(_LOOK_S, self._limit_s))
            ended_s = time.monotonic()


def write_all(descriptor: int, data: bytes, limit_s: float) -> None:
    """Write to a pipe that does not block.

    Raises `DeviceBroken` where its reader is gone, or has taken nothing for `limit_s`.
    """
    left, room = memoryview(data), select.poll()
    room.register(descriptor, select.POLLOUT)
    try:
        while left:
            if not room.poll(limit_s * 1000):
                raise DeviceBroken(f"a process that computes a share of the video took nothing for {limit_s:g} s")
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise DeviceBroken("a process that computes a share of the video is gone") from error
