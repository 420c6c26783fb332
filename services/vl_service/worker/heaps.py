"""The C library's heaps: few, and what was freed is given back now and then.

Pictures, prompts and grammars leave holes of every size in them, in some 15 heaps of 40 threads: of a tiny checkpoint's
685 MiB after 150 calls 124 were free, and after 5,500 calls its heaps alone held 650.
"""

import contextlib
import ctypes
import time

_M_ARENA_MAX, _ARENAS = -8, 2
_EVERY_S = 5.0  # it takes 10 ms and more


class Heaps:
    """Of this process. Where the C library is another than glibc, nothing is done."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._trimmed_at = time.monotonic()
        with contextlib.suppress(AttributeError):
            self._library.mallopt(_M_ARENA_MAX, _ARENAS)

    def trim(self) -> None:
        """Give back what is free, unless that was done a moment ago. From any thread."""
        if time.monotonic() - self._trimmed_at < _EVERY_S:
            return
        self._trimmed_at = time.monotonic()
        with contextlib.suppress(AttributeError):
            self._library.malloc_trim(0)
