"""One large file over HTTP, going on where an earlier try, or an earlier run, broke off.

huggingface_hub keeps whole files between runs and nothing of a file that broke off; a shard of weights has 10 GB.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

_CHUNK = 2**20
_TRIES, _PAUSE_S = 3, 1.0
_PROGRESS = 64 * 2**20
"""Bytes after which a line that breaks off counts as a working one."""


def download(
    url: str, path: Path, num_bytes: int, headers: Mapping[str, str], on_bytes: Callable[[int], None]
) -> None:
    """Have the file at `path`; `on_bytes` hears how many have come, those of earlier runs first.

    Raises `httpx.HTTPError` once three tries in a row brought next to nothing; what came stays for the next run.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    on_bytes(_size(part))
    tries, seen = _TRIES, _size(part)
    while _size(part) < num_bytes:
        try:
            _go_on(url, part, headers, on_bytes)
        except httpx.TransportError:
            if _size(part) - seen >= _PROGRESS:
                tries = _TRIES
            tries, seen = tries - 1, _size(part)
            if not tries:
                raise
            time.sleep(_PAUSE_S)
    part.replace(path)


def _go_on(url: str, part: Path, headers: Mapping[str, str], on_bytes: Callable[[int], None]) -> None:
    there = _size(part)
    wanted = dict(headers) | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with httpx.stream("GET", url, headers=wanted, follow_redirects=True, timeout=60) as answer:
        answer.raise_for_status()
        resumed = there and answer.status_code == httpx.codes.PARTIAL_CONTENT
        if there and not resumed:
            on_bytes(-there)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_raw(_CHUNK):
                file.write(chunk)
                on_bytes(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
