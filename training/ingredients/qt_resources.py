"""Reader of Qt's compiled resource files (`.rcc`), which hold the pictures of one package."""

import struct
import zlib
from collections.abc import Iterator

_HEADER = ">4I"  # version, then the offsets of tree, data and names
_ZLIB, _FOLDER, _ZSTD = 1, 2, 4


def read_resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) of every file in an rcc archive.

    Raises ValueError when it is not one, or when an entry is compressed with zstd, which no package here uses.
    """
    if content[:4] != b"qres":
        raise ValueError("not a Qt resource file")
    version, tree, data, names = struct.unpack_from(_HEADER, content, 4)
    node_size = 22 if version >= 2 else 14

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", content, names + offset)
        start = names + offset + 6  # two bytes of length, four of hash
        return content[start:start + 2 * length].decode("utf-16-be")

    def payload(offset: int, flags: int) -> bytes:
        if flags & _ZSTD:
            raise ValueError("zstd-compressed Qt resources are not supported")
        (length,) = struct.unpack_from(">I", content, data + offset)
        raw = content[data + offset + 4:data + offset + 4 + length]
        return zlib.decompress(raw[4:]) if flags & _ZLIB else raw  # four bytes of uncompressed length come first

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_size
        name, flags = struct.unpack_from(">IH", content, at)
        path = f"{folder}/{name_at(name)}" if node else ""
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        else:
            (offset,) = struct.unpack_from(">I", content, at + 10)
            yield path, payload(offset, flags)

    yield from walk(0, "")
