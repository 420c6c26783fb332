"""Files that are whole or absent, whatever stops the process or the machine."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PART_SUFFIX = r"\.[0-9a-f]{8}\.part"
"""What the name of an unfinished file has after that of the finished one, as a regular expression."""


def begin(path: Path) -> BinaryIO:
    """Open a temporary file beside `path`, for its owner alone; raises `OSError`."""
    # A name of its own: a process that was given up for dead may still write the same file.
    return open(path.with_name(f"{path.name}.{secrets.token_hex(4)}.part"), "xb", opener=_private)


def commit(file: BinaryIO, path: Path) -> None:
    """Give a temporary file its name, on disk for good; raises `OSError`."""
    with file:
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    sync_folder(path.parent)


def discard(file: BinaryIO) -> None:
    """Leave nothing of what `begin` opened; on a disk that takes nothing, whatever must be left is left."""
    with suppress(OSError):
        file.close()
    with suppress(OSError):
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends in order; raises `OSError`."""
    file = begin(path)
    try:
        yield file
        commit(file, path)
    except BaseException:
        discard(file)
        raise


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Have `content` at `path`; raises `OSError`."""
    with replacing(path) as file:
        file.write(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_folder(folder: Path) -> None:
    """Make renames inside it last through a power cut; raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
