"""Artifacts in an S3-compatible bucket, shared by every gateway; the disk holds copies that may be lost at any time."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from anyio import to_thread
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config  # for type checkers only: it is not there at run time

from gateway.storage.files import (
    OWNERS,
    TRASH,
    LocalFiles,
    Rewrite,
    StoreBusy,
    Stored,
    StoredFile,
    is_file,
    is_folder,
    is_made,
    make_folder,
    storing,
)
from web.durable import replacing

_COPY_KEPT_S = 3600.0
# A caller waits for these; jobs wait longer, in the line. The store's own ten retries take up to three minutes.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
_ERROR_CHARS = 200
_BEFORE_OURS, _AFTER_OURS = "file_", "job`"  # in a bucket's order of names; everything else there is not even listed
_LAST = "\U0010fffd"
_MARK = b"Stillmotion keeps files here. While several of these lie here, none of them removes unknown files.\n"


class BucketFiles(LocalFiles):
    """Like `LocalFiles`, with the bucket as the place where a file is or is not; `root` is where the copies lie.

    Every method that names no thread of its own blocks for as long as the bucket takes; one that stores, brings or
    removes files of a job raises `StoreBusy` where the bucket does not do it, and a write then stored nothing.
    """

    shared = True

    def __init__(self, root: Path, store: S3Store) -> None:
        super().__init__(root)
        self._store = store
        self._in_bucket: frozenset[str] = frozenset()  # as of the last look

    async def check(self) -> None:
        """Raise `OSError` where the bucket does not answer, or not to us. One small call."""
        try:
            async for _ in obstore.list(self._store, offset=_LAST):  # nothing comes after it, so the answer is empty
                return
        except (BaseError, FileNotFoundError) as error:
            raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0][:_ERROR_CHARS]}") from error

    def write(self, job_id: str, name: str, data: bytes) -> StoredFile:
        """Store `data`, here and in the bucket."""
        stored = super().write(job_id, name, data)
        self._upload(job_id, name)
        return stored

    async def receive(
        self, job_id: str, name: str, chunks: AsyncIterator[bytes], sha256: str | None = None,
        rewrite: Rewrite | None = None,
    ) -> StoredFile:
        """Store a stream: on disk first, so that the bucket never sees one that broke off."""
        stored = await super().receive(job_id, name, chunks, sha256, rewrite)
        await to_thread.run_sync(self._upload, job_id, name)
        return stored

    def bring(self, path: Path) -> None:
        """Have the file at its `path`: copied from the bucket unless it is there; left out where there is none."""
        try:
            os.utime(path)  # a copy in use is kept
            return
        except FileNotFoundError:
            pass
        try:
            with _asking():
                found = obstore.get(self._store, self._key(path))
        except FileNotFoundError:
            return
        with storing():
            make_folder(path.parent)
            with replacing(path) as file, _asking():
                for chunk in found:
                    file.write(chunk)

    def remove_job(self, job_id: str) -> None:
        """Remove every file of a job, in the bucket and here."""
        self._delete(job_id)
        super().remove_job(job_id)

    def remove(self, job_id: str, name: str) -> None:
        """Remove one file if it is there, in the bucket and here."""
        with _asking():
            obstore.delete(self._store, f"{job_id}/{name}")
        super().remove(job_id, name)

    def claim(self, deployment: str) -> set[str]:
        """See `LocalFiles`."""
        owners = {path.split("/")[-1] for path, _ in self._list(OWNERS)}
        if deployment not in owners:
            obstore.put(self._store, f"{OWNERS}/{deployment}", _MARK)
            owners = {path.split("/")[-1] for path, _ in self._list(OWNERS)}  # whoever came at once is seen
        return owners - {deployment}

    def stored(self) -> dict[str, Stored]:
        """See `LocalFiles`: what the bucket holds."""
        found = self._found("")
        self._in_bucket = frozenset(f"{job_id}/{name}" for job_id, ages in found.items() for name in ages)
        return _summed_up(found)

    def trashed(self) -> dict[str, Stored]:
        """See `LocalFiles`."""
        return _summed_up(self._found(TRASH))

    def trash(self, job_id: str) -> None:
        """See `LocalFiles`."""
        self._move(job_id, f"{TRASH}/{job_id}")
        super().remove_job(job_id)

    def bring_back(self, job_id: str) -> None:
        """See `LocalFiles`."""
        self._move(f"{TRASH}/{job_id}", job_id)

    def empty_trash(self, job_id: str) -> None:
        """See `LocalFiles`."""
        self._delete(f"{TRASH}/{job_id}")

    def drop_copies(self) -> None:
        """Remove what the bucket was seen to hold and nobody asked for during an hour."""
        for copy in self.root.glob("*/*"):
            if self._key(copy) in self._in_bucket and time.time() - _used_at(copy) > _COPY_KEPT_S:
                copy.unlink(missing_ok=True)
                with suppress(OSError):
                    copy.parent.rmdir()

    def _list(self, folder: str, *, after: str | None = None) -> Iterator[tuple[str, datetime]]:
        """The path and time of change of every object below `folder`."""
        for page in obstore.list(self._store, prefix=folder or None, offset=after):
            for item in page:
                yield item["path"], item["last_modified"]

    def _found(self, below: str) -> dict[str, dict[str, float]]:
        """Our files below a folder: the age in seconds of each by the id of its job and its name."""
        found: dict[str, dict[str, float]] = {}
        now = datetime.now(UTC)
        for path, changed_at in self._list(below, after=None if below else _BEFORE_OURS):
            if not below and path > _AFTER_OURS:
                break
            parts = path.removeprefix(f"{below}/").split("/")
            if len(parts) == 2 and is_folder(parts[0]) and is_file(parts[1]):
                found.setdefault(parts[0], {})[parts[1]] = (now - changed_at).total_seconds()
        return found

    def _own(self, folder: str) -> list[str]:
        paths = [path for path, _ in self._list(folder)]
        return [path for path in paths if is_file(path.removeprefix(f"{folder}/"))]

    def _delete(self, folder: str) -> None:
        with _asking():
            if own := self._own(folder):
                obstore.delete(self._store, own)

    def _move(self, folder: str, to: str) -> None:
        for path in self._own(folder):
            obstore.rename(self._store, path, f"{to}/{path.removeprefix(f'{folder}/')}")

    def _upload(self, job_id: str, name: str) -> None:
        path = self.path(job_id, name)
        try:
            with _asking():
                obstore.put(self._store, self._key(path), path)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError):  # the bucket itself: it may be made yet
                raise StoreBusy(str(error)) from error
            raise

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def open_bucket(
    url: str, root: Path, *, endpoint: str | None, region: str | None, key_id: str | None, secret: str | None
) -> BucketFiles:
    """The bucket (and prefix) of `s3://bucket/prefix`; without a key, the machine's own credentials are used."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    config: S3Config = {}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    if key_id is not None and secret is not None:
        config["access_key_id"], config["secret_access_key"] = key_id, secret
    plain = endpoint is not None and endpoint.startswith("http://")
    options: ClientConfig = {"allow_http": plain, "timeout": "60s"}
    store = S3Store(bucket, prefix=prefix or None, client_options=options, config=config, retry_config=_RETRIES)
    return BucketFiles(root, store)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise StoreBusy(f"{type(error).__name__}: {str(error).splitlines()[0][:_ERROR_CHARS]}") from error


def _summed_up(found: dict[str, dict[str, float]]) -> dict[str, Stored]:
    return {
        job_id: Stored(age_s=min(ages.values()), made=is_made(job_id, ages)) for job_id, ages in found.items()
    }


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
