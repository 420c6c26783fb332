"""A PNG's chunks (W3C PNG, third edition): pixels go on to the decoder, the rest is read here or left out.

Browsers drop an ancillary chunk with a wrong checksum and go on; so do we. Text and profiles of any size reach nobody.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from PIL import Image

from gateway.submit.images.refusals import several_frames, truncated
from gateway.submit.images.source import Notes, Source, orientation_of

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MAX_PROFILE_BYTES: Final = 16 * 2**20
_SAMPLES: Final = {2: "RGB", 4: "LA", 6: "RGBA"}
_CRITICAL: Final = 0x20  # bit of a chunk type's first letter that is clear in those that a decoder must know


def read_png(data: bytes) -> Source:
    """Its pixels (critical chunks and transparency) and its notes.

    Raises:
        ImageRefused: it is animated.
    """
    kept, packed, found, ends = [data[:8]], [], {}, False
    for kind, at, length in _chunks(data):
        whole = data[at : at + 12 + length]
        if not kind[0] & _CRITICAL:
            kept.append(whole)
            if kind == b"IDAT":
                packed.append(data[at + 8 : at + 8 + length])
            if kind == b"IEND":
                ends = True
                break
        elif len(whole) == 12 + length and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:]):
            found.setdefault(kind, whole[8:-4])
            if kind == b"tRNS":
                kept.append(whole)
    if int.from_bytes(found.get(b"acTL", b"")[:4]) > 1:
        raise several_frames("PNG")
    width, height, depth, colours, *ways = struct.unpack(">IIBBBBB", data[16:29].ljust(13, b"\0"))
    notes = Notes(key=_key(found.get(b"tRNS", b""), depth, colours), **_notes(found))
    banded = depth == 8 and colours in _SAMPLES and not any(ways) and width * height > 0
    return Source(
        data=b"".join(kept), notes=notes, size=(width, height), ends=ends,
        packed=b"".join(packed) if banded else None,
    )


def png_rows(packed: bytes, width: int, mode: str) -> Callable[[int, int], Image.Image]:
    """Bands of a PNG of 8 bits a sample and no interlacing, from the top downwards: a small PNG of each, which begins
    with the last row of the one before, for rows are coded as differences. The whole would take 4 bytes a pixel.
    """
    unpacking, rest, before = zlib.decompressobj(), packed, b""
    colours = next(number for number, own in _SAMPLES.items() if own == mode)

    def rows(top: int, bottom: int) -> Image.Image:
        nonlocal rest, before
        wanted = (bottom - top) * (1 + width * len(mode))
        band = unpacking.decompress(rest, wanted)
        rest = unpacking.unconsumed_tail
        if len(band) < wanted:
            raise truncated()
        start = b"\0" + before if before else b""  # 0: not coded
        header = struct.pack(">IIBBBBB", width, bottom - top + bool(start), 8, colours, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(start + band, 0)), (b"IEND", b""))
        image = Image.open(io.BytesIO(_SIGNATURE + b"".join(_chunk(*part) for part in parts)), formats=("PNG",))
        image.load()
        before = image.crop((0, image.height - 1, width, image.height)).tobytes()
        return image.crop((0, bool(start), width, image.height))

    return rows


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset, length of the body) of each; the last one may be cut off."""
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at, length
        at += 12 + length


def _notes(found: dict[bytes, bytes]) -> dict[str, Any]:
    notes: dict[str, Any] = {"srgb": len(found.get(b"sRGB", b"")) == 1}
    if b"eXIf" in found:
        notes["orientation"] = orientation_of(found[b"eXIf"])
    if b"iCCP" in found:
        notes["icc"] = _profile(found[b"iCCP"])
    coding = found.get(b"cICP", b"")
    if len(coding) == 4 and coding[2] == 0:  # a matrix of 0 is RGB, all that PNG allows
        notes["cicp"] = (coding[0], coding[1])
    if len(found.get(b"gAMA", b"")) == 4:
        notes["gamma"] = int.from_bytes(found[b"gAMA"]) / 100_000
    if len(found.get(b"cHRM", b"")) == 32:
        notes["chromaticities"] = tuple(value / 100_000 for value in struct.unpack(">8I", found[b"cHRM"]))
    return notes


def _key(chunk: bytes, depth: int, colours: int) -> tuple[int, ...] | None:
    """The transparent grey or colour, scaled as the decoder scales: to 8 bits, but 16 where greys have them."""
    if colours == 0 and len(chunk) == 2:
        return (int.from_bytes(chunk) * (1 if depth >= 8 else 255 // (2**depth - 1)),)
    if colours == 2 and len(chunk) == 6:
        return tuple(value >> (8 if depth == 16 else 0) for value in struct.unpack(">3H", chunk))
    return None


def _profile(chunk: bytes) -> bytes | None:
    _, _, rest = chunk.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(rest[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacking.eof else None
