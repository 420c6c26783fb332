"""What an exception says of memory and of the device, in torch's and CUDA's words, and the end of a process that has no
use any more. Imports no torch.
"""

import asyncio
import errno
import logging
import os
import signal

from web.worker.errors import DeviceBroken, ModelUnavailable

log = logging.getLogger(__name__)

# torch's CPU allocator raises a plain RuntimeError; CUDA libraries word it in their own ways.
_MEMORY_WORDS = ("defaultcpuallocator: can't allocate memory", "out of memory", "_alloc_failed", "not enough memory")
_MEMORY_TYPES = frozenset({"OutOfMemoryError"})
_DEVICE_WORDS = ("cuda error", "cudnn error", "cublas_status_", "cudnn_status_", "nccl error", "illegal memory access")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error` says that memory was short, of the machine or of the device."""
    if isinstance(error, MemoryError) or type(error).__name__ in _MEMORY_TYPES:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def breaks_the_device(error: BaseException | None) -> bool:
    """Whether every later CUDA call of this process would fail too: only a new process gets a working context.

    What the error was raised from counts as well: libraries wrap it.
    """
    while error is not None:
        if isinstance(error, DeviceBroken):
            return True
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            words = str(error).lower()
            if any(device in words for device in _DEVICE_WORDS):
                return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def one_line(error: BaseException, max_chars: int = 2000) -> str:
    """The error's type and text without line breaks."""
    text = " ".join(str(error).split())[:max_chars]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def why_not_loaded(error: BaseException) -> str:
    """What kept a model from being loaded, for people."""
    return str(error) if isinstance(error, ModelUnavailable) else f"The model cannot be loaded: {one_line(error)}"


def end_process_if_it_crashes(task: asyncio.Task[None]) -> None:
    """SIGTERM to ourselves when `task` raises: a service whose loop is gone would answer for ever and never work."""
    def look(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("%s crashed; this process ends", task.get_name(), exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    task.add_done_callback(look)
