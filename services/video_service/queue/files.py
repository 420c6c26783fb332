"""Where the files of renders lie: `<folder>/<id>-<n>/{video.mp4, *.jpg, *.png}`; none of them outlives the process.

The worker, which writes them, imports this and nothing else of the queue.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.videos import RenderFile

log = logging.getLogger(__name__)

_NAMES: dict[RenderFile, str] = {
    "video": "video.mp4", "thumbnail": "thumbnail.jpg", "spritesheet": "spritesheet.jpg",
    "last_frame": "last_frame.png",
}


class FolderInUse(Exception):
    """Another process holds the folder; two would remove each other's files."""


class RenderFiles:
    """The folder of the renders; `held` by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self._remover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render-files")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process, and remove what an earlier one left; raises `FolderInUse`.

        The kernel lets go when the process dies.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", blocking=False, fallback_to_soft=False, preserve_lock_file=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise FolderInUse(
                f"Another video service works in {self.folder}; stop it, or set STILLMOTION_DATA to another folder."
            ) from error
        try:
            self._clear()
            yield
            self._remover.shutdown()
        finally:
            lock.release()

    def new_folder(self, render_id: str) -> Path:
        """A folder for one render, not made yet; no other render ever had it."""
        return self.folder / f"{render_id}-{next(self._numbers)}"

    def discard(self, folder: Path) -> None:
        """Remove a render's folder, on a thread of ours; nobody may write into it any more."""
        self._remover.submit(shutil.rmtree, folder, ignore_errors=True)

    def settle(self) -> None:
        """Wait until what was discarded is gone. Blocks."""
        self._remover.submit(lambda: None).result()

    def _clear(self) -> None:
        left = [path for path in self.folder.iterdir() if path.is_dir()]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if left:
            log.info("removed the files of %d renders of an earlier process", len(left))


def preview_path(video: Path) -> Path:
    """Where the latest picture of a clip lies while it is denoised, if it is asked for; beside its video."""
    return video.with_name("preview.jpg")


def output_path(folder: Path, kind: RenderFile) -> Path:
    """Where a render leaves that file."""
    return folder / _NAMES[kind]
