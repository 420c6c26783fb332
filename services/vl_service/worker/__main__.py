"""`python -m vl_service.worker <fd>`: the process that owns the model, supervised by the HTTP process."""

import contextlib
import ctypes
import sys

from vl_service.worker.program import worker_program
from web.worker.child import run

_M_ARENA_MAX, _ARENAS = -8, 2


def share_memory() -> None:
    """Of the C library's heaps as few as do: each of some 40 threads would have one with pictures' memory to itself.

    Over thousands of pictures each grows to the largest that it ever held: 390 MiB of 15 heaps after 5,500 small ones.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library, with heaps of another kind
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


if __name__ == "__main__":
    share_memory()
    sys.exit(run(worker_program()))
