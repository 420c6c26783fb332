"""What a command says, and how it ends: with its status, or in one sentence where its output cannot be written."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def say(line: str) -> None:
    """Write a line to standard output, at once; raises `OSError` where that is full or closed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_command(work: Callable[[], int | None]) -> NoReturn:
    """End the process with what `work` returns or exits with; with 1 where its output cannot be written."""
    try:
        try:
            status: int | str | None = work()
        except SystemExit as ended:
            status = ended.code
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever started this
                stream.flush()
    except OSError as error:
        with suppress(OSError, AttributeError):
            sys.stderr.write(f"{error.filename or 'The output'}: {error.strerror or error}.\n")
            sys.stderr.flush()
        os._exit(1)  # flushing at the end would fail once more
    sys.exit(status)
