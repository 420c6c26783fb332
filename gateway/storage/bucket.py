"""Artifacts in an S3-compatible bucket, shared by every gateway; the disk holds copies that may be lost at any time."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from anyio import to_thread
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config  # for type checkers only: it is not there at run time

from gateway.storage.files import LocalFiles, StoredFile, begin, commit, discard

_COPY_KEPT_S = 3600.0
_ERROR_CHARS = 200


class BucketFiles(LocalFiles):
    """Like `LocalFiles`, with the bucket as the place where a file is or is not; `root` is where the copies lie.

    Every method that names no thread of its own blocks for as long as the bucket takes. Errors of the bucket are
    `obstore.exceptions.BaseError`; a write that raised one stored nothing.
    """

    def __init__(self, root: Path, store: S3Store) -> None:
        super().__init__(root)
        self._store = store

    async def check(self) -> None:
        """Raise `OSError` where the bucket does not answer, or not to us. One small call."""
        try:
            # All names begin with `job_` or `file_`: nothing comes after this, so the answer is empty.
            async for _ in obstore.list(self._store, offset="zzzz"):
                return
        except (BaseError, FileNotFoundError) as error:
            raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0][:_ERROR_CHARS]}") from error

    def write(self, job_id: str, name: str, data: bytes) -> StoredFile:
        """Store `data`, here and in the bucket."""
        stored = super().write(job_id, name, data)
        self._upload(job_id, name)
        return stored

    async def receive(
        self, job_id: str, name: str, chunks: AsyncIterator[bytes], sha256: str | None = None
    ) -> StoredFile:
        """Store a stream: on disk first, so that the bucket never sees one that broke off."""
        stored = await super().receive(job_id, name, chunks, sha256)
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
            found = obstore.get(self._store, self._key(path))
        except FileNotFoundError:
            return
        file = begin(path)
        try:
            for chunk in found:
                file.write(chunk)
        except BaseException:
            discard(file)
            raise
        commit(file, path)

    def remove_job(self, job_id: str) -> None:
        """Remove every file of a job, in the bucket and here."""
        for page in obstore.list(self._store, prefix=job_id):
            obstore.delete(self._store, [item["path"] for item in page])
        super().remove_job(job_id)

    def remove(self, job_id: str, name: str) -> None:
        """Remove one file if it is there, in the bucket and here."""
        obstore.delete(self._store, f"{job_id}/{name}")
        super().remove(job_id, name)

    def stored(self) -> dict[Path, float]:
        """What lies on this disk, and the folder of every job in the bucket, with its age in seconds."""
        now = datetime.now(UTC)
        found = super().stored()
        for page in obstore.list(self._store):
            for item in page:
                folder = self.root / item["path"].split("/")[0]
                found[folder] = max(found.get(folder, 0.0), (now - item["last_modified"]).total_seconds())
        return found

    def sweep(self, stored: Mapping[Path, float], known: set[str], older_than_s: float) -> int:
        """As `LocalFiles.sweep`, and drop the copies that nobody asked for during an hour; those are not counted."""
        removed = super().sweep(stored, known, older_than_s)
        for copy in self.root.glob("*/*"):
            if time.time() - _used_at(copy) > _COPY_KEPT_S:
                copy.unlink(missing_ok=True)
        return removed

    def _upload(self, job_id: str, name: str) -> None:
        path = self.path(job_id, name)
        try:
            obstore.put(self._store, self._key(path), path)
        except BaseException:
            path.unlink(missing_ok=True)
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
    store = S3Store(bucket, prefix=prefix or None, client_options=options, config=config)
    return BucketFiles(root, store)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
