"""Ties a child process to its parent, so that even SIGKILL of the parent leaves nothing running."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; runs in the child between fork and exec.

    Does nothing where the kernel has no such request (macOS); there only an orderly stop ends the children.
    """
    if _PRCTL is None:
        return
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent died before the request was in force
        os._exit(1)
