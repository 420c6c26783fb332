"""Artifacts on local disk: a file is there completely or not at all."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

VIDEO_FILE = "video.mp4"
_TEMPORARY = ".part"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What was written: the number of bytes and their SHA-256 in hex."""

    path: Path
    num_bytes: int
    sha256: str


class LocalFiles:
    """A folder a job under `root`; every write goes temp → fsync → rename → fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, job_id: str, name: str) -> Path:
        """Where the file `name` of a job lies, or would lie."""
        return self.root / job_id / name

    def write(self, job_id: str, name: str, data: bytes) -> StoredFile:
        """Store `data`. Blocking."""
        path = self.path(job_id, name)
        file = _begin(path)
        try:
            file.write(data)
        except BaseException:
            _discard(file, path)
            raise
        _commit(file, path)
        return StoredFile(path=path, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    async def receive(self, job_id: str, name: str, chunks: AsyncIterator[bytes]) -> StoredFile:
        """Store a stream without holding it in memory; if the stream breaks off, nothing is stored."""
        path, digest, num_bytes = self.path(job_id, name), hashlib.sha256(), 0
        file = await to_thread.run_sync(_begin, path)
        try:
            async for chunk in chunks:
                await to_thread.run_sync(file.write, chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
        except BaseException:
            _discard(file, path)
            raise
        await to_thread.run_sync(_commit, file, path)
        return StoredFile(path=path, num_bytes=num_bytes, sha256=digest.hexdigest())

    def remove_job(self, job_id: str) -> None:
        """Remove every file of a job. Blocking."""
        shutil.rmtree(self.root / job_id, ignore_errors=True)

    def remove(self, job_id: str, name: str) -> None:
        """Remove one file if it is there. Blocking."""
        self.path(job_id, name).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Remove what a killed process left: unfinished files and folders of no known job. Returns how many."""
        removed = 0
        for folder in self.root.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
                continue
            for file in folder.glob(f"*{_TEMPORARY}"):
                file.unlink()
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Free space of the disk that holds the files."""
        return shutil.disk_usage(self.root).free


def _part(path: Path) -> Path:
    return path.with_name(path.name + _TEMPORARY)


def _begin(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return _part(path).open("wb")


def _discard(file: BinaryIO, path: Path) -> None:
    file.close()
    _part(path).unlink(missing_ok=True)


def _commit(file: BinaryIO, path: Path) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
    _part(path).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
