"""An image that the gateway sent becomes pixels, and nothing else does."""

import io
import struct
import zlib

import pytest
from PIL import Image

from web.worker.image import ImageUnreadable, decode_image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_formats_become_rgb(kind: str, mode: str) -> None:
    image = decode_image(encoded(Image.new(mode, (40, 30), "white"), kind))
    assert (image.mode, image.size, image.getpixel((20, 15))) == ("RGB", (40, 30), (255, 255, 255))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("data", [
    b"", b"words", encoded(Image.new("RGB", (40, 30)), "GIF"), encoded(Image.effect_noise((90, 90), 50))[:2000],
    encoded(Image.effect_noise((90, 90), 50), "JPEG")[:1000],
    *(png_header_only(side, side) for side in (7300, 12_000, 30_000)),  # refused by the header: there are no pixels
])
def test_all_else_is_refused(data: bytes) -> None:
    with pytest.raises(ImageUnreadable):
        decode_image(data)
