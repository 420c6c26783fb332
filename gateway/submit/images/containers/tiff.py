"""A TIFF's first directory (TIFF 6.0): its orientation is read here, and entries that lead nowhere are emptied.

The decoder would turn the image itself and write its EXIF anew for that, and it drops every entry after a broken one.
"""

import struct
from typing import Final

from gateway.submit.images.source import Notes, Source, orientation_place

_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_DIRECTORIES: Final = frozenset({0x8769, 0x8825, 0xA005})  # EXIF, GPS, interoperability: nothing about pixels


def read_tiff(data: bytes) -> Source:
    """The file as its decoder should see it: upright, and without metadata that it might stumble over."""
    changed, order = bytearray(data), "<" if data[:1] == b"I" else ">"
    place = orientation_place(data)
    if place is not None:
        struct.pack_into(order + "HLHH", changed, place[1] - 6, 3, 1, 1, 0)
    for at in _entries(data, order):
        tag, kind, count, value = struct.unpack_from(order + "HHLL", data, at)
        size = _TYPE_BYTES.get(kind, 0) * count
        if not size or (size > 4 and value + size > len(data)) or tag in _DIRECTORIES:
            struct.pack_into(order + "HLL", changed, at + 2, 1, 1, 0)
    return Source(data=bytes(changed), notes=Notes(orientation=place[0] if place else 1))


def _entries(data: bytes, order: str) -> range:
    """Where the first directory's entries begin."""
    if len(data) < 8:
        return range(0)
    (directory,) = struct.unpack_from(order + "L", data, 4)
    if directory + 2 > len(data):
        return range(0)
    (count,) = struct.unpack_from(order + "H", data, directory)
    return range(directory + 2, min(directory + 2 + 12 * count, len(data) - 11), 12)
