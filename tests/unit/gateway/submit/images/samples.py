"""Image files made from numbers: every format, PNG chunks and JPEG segments by hand, ICC profiles."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gateway.submit.images.check import CheckedImage, ImageLimits, check_image

LIMITS = ImageLimits(max_bytes=20 * 2**20, max_pixels=52_000_000, stored_long_side=2048)
HEIC = (Path(__file__).parent / "gradient.heic").read_bytes()  # 160 x 96; no encoder of it is among the packages
# x and y of red, green, blue and white.
PRIMARIES = {
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
    "Adobe RGB (1998)": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290)),
    "BT.2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
Gamma = float | str


def checked(data: bytes, **limits: int) -> CheckedImage:
    return check_image(data, ImageLimits(**{**{name: getattr(LIMITS, name) for name in LIMITS.__slots__}, **limits}))


def as_image(image: CheckedImage) -> Image.Image:
    return Image.open(io.BytesIO(image.data))


def centre(data: bytes) -> tuple[int, ...]:
    """The colour in the middle of the checked image."""
    image = as_image(checked(data))
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def noise(width: int, height: int, kind: str, **more: Any) -> bytes:
    return encoded(Image.effect_noise((width, height), 60).convert("RGB"), kind, **more)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks right after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def raw_png(array: np.ndarray, colours: int, depth: int, *chunks: bytes) -> bytes:
    """A PNG of an array [H, W, C] written by hand: 16-bit colours, greys of 2 bits …"""
    height, width = array.shape[:2]
    if depth < 8:
        bits = np.unpackbits(array[:, :, :1].astype("u1"), axis=2)[:, :, 8 - depth :].reshape(height, -1)
        rows = np.packbits(bits, axis=1)
    else:
        rows = np.frombuffer(array.astype(">u2" if depth == 16 else "u1").tobytes(), "u1").reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b""))
    )


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment at its start."""
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def exif(orientation: int, *others: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF directory: the orientation, and other entries of (tag, type, count, four bytes of value)."""
    entries = sorted([(0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)), *others])
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HLH", 42, 8, len(entries))
    return head + b"".join(struct.pack(order + "HHL", *entry[:3]) + entry[3] for entry in entries) + bytes(4)


def to_xyz_d50(name: str) -> np.ndarray:
    """Linear RGB → XYZ of the connection space, by the definition of primaries and the Bradford adaptation."""
    *rgb, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in PRIMARIES[name])
    matrix = np.array(rgb).T
    matrix = matrix * np.linalg.solve(matrix, white)
    cone = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    return np.linalg.inv(_BRADFORD) @ cone @ _BRADFORD @ matrix


def shown(rgb: tuple[int, ...], primaries: str, gamma: Gamma) -> tuple[float, ...]:
    """What a colour-managed viewer shows for these numbers, as sRGB from 0 to 255; what lies outside is clipped."""
    value = np.array(rgb, float) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) if gamma == "srgb" else (
        value ** float(gamma))
    seen = np.linalg.solve(to_xyz_d50("sRGB"), to_xyz_d50(primaries) @ light).clip(0, 1)
    return tuple(255 * np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


def icc(primaries: str | None, gamma: Gamma, description: str = "made of numbers") -> bytes:
    """A version 2 display profile, of greys where `primaries` is `None`."""
    name = description.encode() + b"\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78), b"wtpt": _fixed(_D50)}
    if primaries is None:
        tags[b"kTRC"] = _curve(gamma)
    else:
        for column, colour in zip(to_xyz_d50(primaries).T, (b"r", b"g", b"b"), strict=True):
            tags |= {colour + b"XYZ": _fixed(column), colour + b"TRC": _curve(gamma)}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4xI4s4s4s12x4s28x", offset + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return (head + _fixed(_D50)[8:]).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: Gamma) -> bytes:
    if gamma != "srgb":
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(float(gamma) * 256))
    value = np.linspace(0, 1, 1024)
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + (light * 65535).round().astype(">u2").tobytes()
