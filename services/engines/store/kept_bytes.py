"""A cache file beside the engines: what a library learned, kept for its next start. Imports no model library."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from web.durable import replace_file

log = logging.getLogger(__name__)

_DIGEST_BYTES = 32


class KeptBytes:
    """Bytes in the file `path`, written whole or not at all; a damaged file counts as absent.

    Losing it costs time and nothing else, so a disk that cannot be written is logged and forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """Empty where nothing is kept."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return b""
        digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != digest:
            log.warning("a damaged cache is left out", extra={"path": str(self.path)})
            return b""
        return blob

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replace what is kept by `change` of it; no other process comes in between."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), fallback_to_soft=False):
                blob = change(self.read())
                replace_file(self.path, hashlib.sha256(blob).digest() + blob)
        except OSError as error:
            log.warning("a cache cannot be written", extra={"path": str(self.path), "reason": str(error)})
