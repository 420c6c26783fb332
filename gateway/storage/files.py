"""Artifacts on local disk: a file is there completely or not at all."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
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


class ChecksumMismatch(ValueError):
    """A stream whose SHA-256 is not the one that was told before."""


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
        file = begin(path)
        try:
            file.write(data)
        except BaseException:
            discard(file)
            raise
        commit(file, path)
        return StoredFile(path=path, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    async def receive(
        self, job_id: str, name: str, chunks: AsyncIterator[bytes], sha256: str | None = None
    ) -> StoredFile:
        """Store a stream without holding it in memory; if it breaks off, what was there before stays.

        Raises `ChecksumMismatch`, likewise, where the whole stream has another SHA-256 than `sha256` (hex).
        """
        path, digest, num_bytes = self.path(job_id, name), hashlib.sha256(), 0
        file = await to_thread.run_sync(begin, path)
        try:
            async for chunk in chunks:
                await to_thread.run_sync(file.write, chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
            if sha256 not in (None, digest.hexdigest()):
                raise ChecksumMismatch(f"{name} of {job_id} should have SHA-256 {sha256}, has {digest.hexdigest()}")
        except BaseException:
            discard(file)
            raise
        await to_thread.run_sync(commit, file, path)
        return StoredFile(path=path, num_bytes=num_bytes, sha256=digest.hexdigest())

    def bring(self, path: Path) -> None:
        """Have the file at its `path`, where every file that there is lies already."""

    def remove_job(self, job_id: str) -> None:
        """Remove every file of a job. Blocking."""
        shutil.rmtree(self.root / job_id, ignore_errors=True)

    def remove(self, job_id: str, name: str) -> None:
        """Remove one file if it is there. Blocking."""
        self.path(job_id, name).unlink(missing_ok=True)

    def stored(self) -> dict[Path, float]:
        """Every job's folder and every unfinished file, with its age in seconds. Blocking."""
        now = time.time()
        paths = [path for folder in self.root.iterdir() for path in (folder, *folder.glob(f"*{_TEMPORARY}"))]
        return {path: now - _changed_at(path) for path in paths}

    def sweep(self, stored: Mapping[Path, float], known: set[str], older_than_s: float) -> int:
        """Remove, of what was stored, unfinished files and folders of no known job. Returns how many. Blocking.

        `known` must have been asked after `stored`: a younger job's folder may have been there before the job was.
        """
        removed = 0
        for path, age_s in stored.items():
            if age_s < older_than_s:
                continue
            if path.parent == self.root and path.name not in known:
                self.remove_job(path.name)
                removed += 1
            elif path.name.endswith(_TEMPORARY):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    async def check(self) -> None:
        """Raise `OSError` where a store beyond this disk takes no files. There is none here."""

    def free_bytes(self) -> int:
        """Free space of the disk that holds the files."""
        return shutil.disk_usage(self.root).free


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # gone meanwhile
        return 0.0


def _part(path: Path) -> Path:
    # A name of its own: a process that was given up for dead may still write the same file.
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")


def begin(path: Path) -> BinaryIO:
    """Open a temporary file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _part(path).open("wb")


def discard(file: BinaryIO) -> None:
    """Leave nothing of what `begin` opened."""
    file.close()
    Path(file.name).unlink(missing_ok=True)


def commit(file: BinaryIO, path: Path) -> None:
    """Give what `begin` opened its name, on disk for good."""
    with file:
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
