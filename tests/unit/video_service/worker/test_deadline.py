"""Laws of what other ranks and devices are waited for."""

import os
import queue
import threading
import time

import pytest

from video_service.worker.peers.deadline import StepClock, write_all
from web.worker.errors import DeviceBroken

LIMIT_S = 1.0


class Step:
    """An event that is done when the test says so: no CUDA here."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def query(self) -> bool:
        return self.done.is_set()


def test_a_step_that_does_not_end_is_told_once_and_those_before_it_had_their_own_time() -> None:
    told: queue.Queue[str] = queue.Queue()
    clock, steps = StepClock(LIMIT_S, told.put), [Step() for _ in range(13)]
    for step in steps:  # all of them at once, as a host that is ahead of its device
        clock.follow(step)
    began_s = time.monotonic()
    for step in steps[:-1]:
        time.sleep(LIMIT_S / 10)
        step.done.set()
    assert told.get(timeout=30) == f"a step did not end within {LIMIT_S:g} s"
    assert time.monotonic() - began_s > 2 * LIMIT_S
    assert told.empty()


def test_what_a_process_does_not_take_is_not_written_for_ever() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    write_all(writer, b"a step", LIMIT_S)
    assert os.read(reader, 6) == b"a step"
    large = os.urandom(1 << 20)
    found = bytearray()
    taking = threading.Thread(target=lambda: found.extend(iter_all(reader, len(large))))
    taking.start()
    write_all(writer, large, 30)
    taking.join()
    assert found == large
    with pytest.raises(DeviceBroken, match=r"took nothing for 0\.1 s"):
        write_all(writer, large, 0.1)
    os.close(reader)
    with pytest.raises(DeviceBroken, match="is gone"):
        write_all(writer, large, LIMIT_S)
    os.close(writer)


def iter_all(reader: int, length: int) -> bytes:
    found = b""
    while len(found) < length:
        found += os.read(reader, 1 << 16)
    return found
