"""Bytes in files, one a key: written whole or not at all, checked when read, the least recently used removed first."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX = ".features"
_DIGEST_BYTES = 32


class DiskCache:
    """Several processes may share the folder. What the disk refuses is logged, and no error of the caller."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, key: str) -> bytes | None:
        """None where there is none, or it is damaged: then the file is removed."""
        path = self._folder / (key + _SUFFIX)
        try:
            content = path.read_bytes()
            os.utime(path)  # used now
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the feature cache cannot be read", extra={"reason": str(error)})
            return None
        body = content[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != content[:_DIGEST_BYTES]:
            log.warning("a damaged file of the feature cache was removed", extra={"file": path.name})
            path.unlink(missing_ok=True)
            return None
        return body

    def put(self, key: str, body: bytes) -> None:
        """Keep it, and remove what is over the bound."""
        if len(body) + _DIGEST_BYTES > self._max_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._folder / (key + _SUFFIX), body)
            self._make_room()
        except OSError as error:
            log.warning("the feature cache cannot be written", extra={"reason": str(error)})

    def _write(self, path: Path, body: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as part:
            try:
                part.write(hashlib.sha256(body).digest())
                part.write(body)
                part.close()
                Path(part.name).replace(path)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise

    def _make_room(self) -> None:
        files = sorted(self._files(), reverse=True)  # the last used first
        total = 0
        for _, size, path in files:
            total += size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """When last used (ns), size and path of each; also of parts that a killed process left."""
        for path in self._folder.iterdir():
            if path.suffix in (_SUFFIX, ".part"):
                with suppress(FileNotFoundError):  # another process removed it
                    stat = path.stat()
                    yield stat.st_mtime_ns, stat.st_size, path
