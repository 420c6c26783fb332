"""How many bytes a checkpoint's weights take, and how many there are to hold them. Imports no model library."""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

INT8_FOLDER = "int8"
"""In a transformer's: its linear layers once more, in the int8 blocks that they were published in."""
_WHOLE_NUMBERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema)[.-]")
_MAX_HEADER_BYTES = 100 * 2**20
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def weight_bytes(folder: Path, parts: Iterable[str], float_bytes: int) -> int | None:
    """Bytes of the weights in these folders of a checkpoint, their floats `float_bytes` each, whatever they are stored
    in; None where no file of weights is there (yet). Reads the files' headers alone.
    """
    found = [file for part in parts for file in _weight_files(folder / part)]
    return sum(_bytes_of(file, float_bytes) for file in found) if found else None


def int8_bytes(folder: Path, parts: Iterable[str]) -> int:
    """How many weights of these folders are there in int8 blocks too, a byte each."""
    return sum(_bytes_of(file, 0) for part in parts for file in _weight_files(folder / part / INT8_FOLDER))


def machine_bytes() -> int:
    """The memory that this process may use: the machine's, or its control group's where that is less."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUP_LIMITS:
        try:
            bounds.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such controller, or `max`
            continue
    return min(bounds)


def in_words(num_bytes: int) -> str:
    """Such as `27.4 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def _weight_files(folder: Path) -> list[Path]:
    """Where the same weights are there in several formats, the plainly named ones, which are those that are read."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if not _VARIANT.search(file.name)]
    return plain or files


def _bytes_of(file: Path, float_bytes: int) -> int:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= _MAX_HEADER_BYTES else {}
        return sum(
            math.prod(tensor["shape"]) * _WHOLE_NUMBERS.get(tensor["dtype"], float_bytes)
            for name, tensor in header.items() if name != "__metadata__"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0  # a damaged file: loading says what is the matter with it
