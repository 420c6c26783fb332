"""What names the weights that a model computes with: a hub's commit or a hash of their content, and a LoRA in them.

A revision is `BASE`, or `BASE+lora-HASH@SCALE`: BASE of the checkpoint, HASH of the LoRA file's content.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

_MARK = "+lora-"
_HASHED = frozenset({".json", ".safetensors", ".model", ".jinja"})
_HASHED_WHOLE_BYTES = 512 * 2**20
_SAMPLE_BYTES = 2**16
_SAMPLES = 256


def content_hash(path: Path, only: Collection[str] | None = None) -> str:
    """First 16 hex digits of SHA-256 over names, sizes and content of every file that decides the output.

    `only`: over those names in the folder alone; no other is opened.
    """
    digest = hashlib.sha256()
    found = path.rglob("*") if only is None else (path / name for name in only)
    files = [file for file in found if file.is_file() and file.suffix in _HASHED]
    for file in sorted(files, key=lambda file: file.relative_to(path).as_posix()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _HASHED_WHOLE_BYTES:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            # Tens of gigabytes would take a minute to read: evenly spread samples tell two trainings apart.
            for index in range(_SAMPLES):
                stream.seek(index * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def with_lora(base: str, digest: str, scale: float) -> str:
    """The revision of the checkpoint `base` with a LoRA in it."""
    return f"{base}{_MARK}{digest}@{scale!r}"


def base_of(revision: str) -> str:
    """The revision without its LoRA."""
    return revision.partition(_MARK)[0]


def short(revision: str) -> str:
    """For people: the first 12 digits of the checkpoint's, and all that tells one LoRA from another."""
    base, mark, lora = revision.partition(_MARK)
    return base[:12] + mark + lora
