"""The boxes of AVIF and HEIF files (ISO/IEC 14496-12 and 23008-12), as far as they say how colours are meant."""

import struct
from collections.abc import Iterator
from typing import Final

from gateway.submit.images.source import Notes, Source

_MAX_BOXES: Final = 4096


def read_boxes(data: bytes) -> Source:
    """The file with its EXIF out of the decoder's sight, and its coded colour (`nclx`).

    Turning and mirroring are properties of the image here; the standard gives the EXIF's orientation no say.
    """
    cicp, hidden = None, bytearray(data)
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind != b"meta":
            continue
        for name, at, stop in _inside(data, start + 4, end):
            if name == b"colr" and data[at : at + 4] == b"nclx" and cicp is None:
                cicp = struct.unpack(">HH", data[at + 4 : at + 8]) if stop - at >= 8 else None
            if name == b"infe" and data[at + 8 : at + 12] == b"Exif":
                hidden[at + 8 : at + 12] = b"none"
    return Source(data=bytes(hidden), notes=Notes(cicp=cicp))


def _inside(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for kind, at, stop in _boxes(data, start, end):
        if kind in (b"iprp", b"ipco"):
            yield from _inside(data, at, stop)
        elif kind == b"iinf":
            yield from _boxes(data, at + (6 if data[at : at + 1] == b"\0" else 8), stop)
        else:
            yield kind, at, stop


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end) of each box in between."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, body = int.from_bytes(data[start : start + 4]), start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8]), body + 8
        stop = end if size == 0 else start + size
        if stop > end or stop < body:
            return
        yield data[start + 4 : start + 8], body, stop
        start = stop
