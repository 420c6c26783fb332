"""Where a video goes: a file that appears complete or not at all, or a device or pipe that is written to as it is."""

import asyncio
import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from web.durable import replacing

_LOOK_S = 0.1
_OF_THE_SYSTEM = ("/dev/", "/proc/")


class OutputUnusable(Exception):
    """Nothing can be written there; the message is one sentence for a person."""


def output_path(text: str) -> Path:
    """The path that somebody meant by `text`, where - is standard output and a folder may end in /."""
    if text == "-":
        return Path("/dev/stdout")
    return Path(text, "video.mp4") if text.endswith("/") and text.strip("/") else Path(text)


def check_output(path: Path) -> None:
    """Find out before a video is made whether it can be written; nothing is left of that.

    Raises:
        OutputUnusable: it cannot.
    """
    try:
        if path.is_dir():
            raise OutputUnusable(f"{path} is a folder: name the file in it, such as {path / 'video.mp4'}.")
        if not _is_written_straight(path):
            _try_folder(path.resolve().parent)
        elif stat.S_ISSOCK(path.stat().st_mode) or not os.access(path, os.W_OK):
            raise OutputUnusable(f"{path} cannot be written to.")
    except OSError as error:
        raise OutputUnusable(f"{path} cannot be written: {error.strerror}.") from None
    except RuntimeError:  # what `resolve` says of links in a circle, up to Python 3.12
        raise OutputUnusable(f"{path} cannot be written: its links lead in a circle.") from None


def _try_folder(folder: Path) -> None:
    """Raise `OSError` where neither a file can be made in the folder nor, while it is missing, the folder itself."""
    while not folder.exists() and not folder.is_symlink():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def is_standard_output(path: Path) -> bool:
    """Whether what is printed would land in the video."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


@asynccontextmanager
async def written(path: Path) -> AsyncIterator[BinaryIO]:
    """A stream to `path`; a file, and what a link points to, changes when the block ends without an error.

    Raises:
        OSError: it cannot be written.
    """
    if _is_written_straight(path):
        with os.fdopen(await _open_when_read(path), "wb") as stream:
            yield stream
    else:
        with whole_file(path) as stream:
            yield stream


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path` (or what it links to); the name changes hands, on disk, when the block ends in order."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        yield stream
        # For its owner alone until it is whole; a user's video is not.
        os.fchmod(stream.fileno(), stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)


def _is_written_straight(path: Path) -> bool:
    """Whether it is a device or pipe: root could replace it by a file, and then `/dev/null` is one."""
    return str(path.absolute()).startswith(_OF_THE_SYSTEM) or (path.exists() and not path.is_file())


async def _open_when_read(path: Path) -> int:
    """The open pipe or device. Waits until somebody reads the pipe, as a shell does, but so that Ctrl-C ends it."""
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(_LOOK_S)
        else:
            os.set_blocking(handle, True)
            return handle
