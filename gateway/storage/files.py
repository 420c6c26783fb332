"""Artifacts on local disk: a file is there whole or not at all; only what has a name of our form is touched."""

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from contracts.refusal import Refusal
from gateway.database.errors import DISK_FULL
from gateway.storage.room import is_full
from web.durable import PART_SUFFIX, begin, commit, discard, replace_file, replacing

VIDEO_FILE, EXTENDED_FILE, LAST_FRAME_FILE = "video.mp4", "extended.mp4", "last_frame.png"
Rewrite = Callable[[BinaryIO, BinaryIO], None]
"""From a file open for reading and writing to an empty one open likewise. Blocking."""
OWNERS, TRASH = ".deployments", ".trash"
_FOLDER = re.compile(r"(job|file|conv)_[0-9a-f]{24}")
_FILE = re.compile(r"[a-z_]{1,32}\.(png|jpg|webp|mp4)")
_PART = re.compile(_FILE.pattern + PART_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What was written: the number of bytes and their SHA-256 in hex."""

    path: Path
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The files of one job or upload: seconds since they last changed, and whether they are more than a request's."""

    age_s: float
    made: bool


class StoreBusy(Refusal, OSError):
    """The disk or the bucket cannot be used now; nothing was stored. The same call may succeed later."""

    status, code, title = 503, "storage_unavailable", "The place for files cannot be used now"

    def __init__(self, said: str) -> None:
        super().__init__("No job is lost. Send the request again in 5 s.", retry_after_s=5, log=said)


class StoreFull(StoreBusy):
    """There is no room."""

    status, code, title = 507, "disk_full", "No room on disk"

    def __init__(self, said: str) -> None:
        Refusal.__init__(self, DISK_FULL, retry_after_s=60, log=said)


class ChecksumMismatch(ValueError):
    """A stream whose SHA-256 is not the one that was told before."""


class LocalFiles:
    """A folder a job under `root`; every write goes temp → fsync → rename → fsync of the folder.

    Methods without a thread of their own block.
    """

    shared = False
    """Whether processes that know nothing of each other may write at the same place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_folder(root)

    def path(self, job_id: str, name: str) -> Path:
        """Where the file `name` of a job lies, or would lie."""
        return self.root / job_id / name

    def write(self, job_id: str, name: str, data: bytes) -> StoredFile:
        """Store `data`. Blocking."""
        path = self.path(job_id, name)
        with storing():
            make_folder(path.parent)
            replace_file(path, data)
        return StoredFile(path=path, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    async def receive(
        self, job_id: str, name: str, chunks: AsyncIterator[bytes], sha256: str | None = None,
        rewrite: Rewrite | None = None,
    ) -> StoredFile:
        """Store a stream without holding it in memory; if it breaks off, what was there before stays.

        `rewrite` makes of the whole stream what is stored in its place. Raises `ChecksumMismatch`, likewise, where the
        stream has another SHA-256 than `sha256` (hex).
        """
        path, digest, num_bytes = self.path(job_id, name), hashlib.sha256(), 0
        file = await to_thread.run_sync(_begin, path)
        try:
            async for chunk in chunks:
                await to_thread.run_sync(storing()(file.write), chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
            if sha256 not in (None, digest.hexdigest()):
                raise ChecksumMismatch(f"{name} of {job_id} should have SHA-256 {sha256}, has {digest.hexdigest()}")
            if rewrite is not None:
                return await to_thread.run_sync(_rewritten, file, path, rewrite)
        except BaseException:
            discard(file)
            raise
        await to_thread.run_sync(storing()(commit), file, path)
        return StoredFile(path=path, num_bytes=num_bytes, sha256=digest.hexdigest())

    def bring(self, path: Path) -> None:
        """Have the file at its `path`, where every file that there is lies already."""

    def read(self, job_id: str, name: str) -> bytes:
        """A whole file. Blocking."""
        path = self.path(job_id, name)
        self.bring(path)
        return path.read_bytes()

    def remove_job(self, job_id: str) -> None:
        """Remove every file of a job. Blocking."""
        _remove_own(self.root / job_id)

    def remove(self, job_id: str, name: str) -> None:
        """Remove one file if it is there. Blocking."""
        with storing():
            self.path(job_id, name).unlink(missing_ok=True)

    def claim(self, deployment: str) -> set[str]:
        """Say for good that this deployment keeps files here; returns what others have said so. Blocking."""
        owners = self.root / OWNERS
        if not (owners / deployment).exists():
            owners.mkdir(mode=0o700, exist_ok=True)
            (owners / deployment).touch(0o600)
        return {path.name for path in owners.iterdir()} - {deployment}

    def stored(self) -> dict[str, Stored]:
        """The folder of every job and upload, by its id. Blocking."""
        files = {folder: [name for name in _names(folder) if is_file(name)] for folder in _folders(self.root)}
        return {folder.name: Stored(age_s=_age_s(folder), made=is_made(folder.name, names))
                for folder, names in files.items() if names}

    def drop_parts(self, older_than_s: float) -> int:
        """Remove the unfinished files that killed processes left, and empty folders. Blocking."""
        removed = 0
        for folder in _folders(self.root):
            if _age_s(folder) < older_than_s:
                continue
            for name in _names(folder):
                if _PART.fullmatch(name) and _age_s(folder / name) >= older_than_s:
                    (folder / name).unlink(missing_ok=True)
                    removed += 1
            with suppress(OSError):
                folder.rmdir()
        return removed

    def trashed(self) -> dict[str, Stored]:
        """What `trash` put aside, and how long ago. Blocking."""
        return {
            folder.name: Stored(age_s=_age_s(folder), made=is_made(folder.name, _names(folder)))
            for folder in _folders(self.root / TRASH)
        }

    def trash(self, job_id: str) -> None:
        """Put the files of a job aside. Blocking."""
        _move_own(self.root / job_id, self.root / TRASH / job_id)

    def bring_back(self, job_id: str) -> None:
        """Undo `trash`. Blocking."""
        _move_own(self.root / TRASH / job_id, self.root / job_id)

    def empty_trash(self, job_id: str) -> None:
        """Remove what `trash` put aside for good. Blocking."""
        _remove_own(self.root / TRASH / job_id)

    def drop_copies(self) -> None:
        """Remove what also lies elsewhere and nobody uses. There is none here."""

    async def check(self) -> None:
        """Raise `OSError` where a store beyond this disk takes no files. There is none here."""

    def check_disk(self) -> None:
        """Raise `OSError` where this disk takes no files. Blocking."""
        path = self.root / f".probe.{secrets.token_hex(4)}"
        try:
            path.write_bytes(b"x")
        finally:
            path.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Free space of the disk that holds the files."""
        return shutil.disk_usage(self.root).free


def is_folder(name: str) -> bool:
    """Whether a folder of this name is ours: of a job, an uploaded file or a conversation."""
    return _FOLDER.fullmatch(name) is not None


def is_file(name: str) -> bool:
    """Whether a file of this name, in a folder that is ours, is ours."""
    return _FILE.fullmatch(name) is not None


def is_made(folder: str, names: Iterable[str]) -> bool:
    """Whether it holds what cannot be had again from its caller's next request: a video, or an upload."""
    return folder.startswith("file_") or VIDEO_FILE in names


def _folders(root: Path) -> list[Path]:
    return [folder for folder in root.iterdir() if is_folder(folder.name)] if root.is_dir() else []


def _names(folder: Path) -> list[str]:
    if folder.is_symlink():
        return []
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, or not ours after all
        return []


def _remove_own(folder: Path) -> None:
    for name in _names(folder):
        if is_file(name) or _PART.fullmatch(name):
            with storing():
                (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something of somebody else's
        folder.rmdir()


def _move_own(folder: Path, to: Path) -> None:
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _names(folder):
        if is_file(name):
            (folder / name).replace(to / name)
    os.utime(to)
    with suppress(OSError):
        folder.rmdir()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # gone meanwhile
        return 0.0


@contextmanager
def storing() -> Iterator[None]:
    """Say `StoreBusy` or `StoreFull` for what the disk says."""
    try:
        yield
    except StoreBusy:
        raise
    except OSError as error:
        failed = (StoreFull if is_full(error) else StoreBusy)(str(error))
        failed.errno = error.errno
        raise failed from error


def make_folder(path: Path) -> None:
    """Have a folder that is its owner's alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:  # from before
        path.chmod(0o700)


def _begin(path: Path) -> BinaryIO:
    with storing():
        make_folder(path.parent)
        return begin(path)


def _rewritten(file: BinaryIO, path: Path, rewrite: Rewrite) -> StoredFile:
    with storing():
        file.close()
        with (
            Path(file.name).open("r+b") as source, replacing(path) as target,
            Path(target.name).open("r+b") as rewritten,
        ):
            rewrite(source, rewritten)
            rewritten.flush()
            rewritten.seek(0)
            sha256 = hashlib.file_digest(rewritten, "sha256").hexdigest()
            num_bytes = rewritten.tell()
        discard(file)
    return StoredFile(path=path, num_bytes=num_bytes, sha256=sha256)
