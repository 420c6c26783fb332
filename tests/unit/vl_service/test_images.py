"""Untrusted picture bytes: what is read, what is refused, and that a refusal says what to do."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vl_service.images import KEPT_PIXELS, ImageRefusedError, decode_image

LIMIT = 40_000_000


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def png_header_only(width: int, height: int) -> str:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def refusal(image_base64: str, max_pixels: int = LIMIT) -> ImageRefusedError:
    with pytest.raises(ImageRefusedError) as caught:
        decode_image(image_base64, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read_with_their_size_and_colour(image_format: str) -> None:
    picture = decode_image(encoded(Image.new("RGB", (40, 30), (200, 30, 30)), image_format), max_pixels=LIMIT)
    assert (picture.width, picture.height, picture.rgb.mode) == (40, 30, "RGB")
    assert np.allclose(np.asarray(picture.rgb)[15, 20], (200, 30, 30), atol=6)


def test_other_formats_are_refused_by_content() -> None:
    assert refusal(encoded(Image.new("RGB", (40, 30)), "GIF")).code == "image_format"
    assert refusal(encoded(Image.new("RGB", (40, 30)), "BMP")).code == "image_format"
    assert refusal(base64.b64encode(b"a text, not a picture").decode()).code == "image_format"


def test_what_is_not_base64_is_refused() -> None:
    assert refusal("data:image/png;base64,AAAA").code == "image_not_base64"
    assert refusal("ä").code == "image_not_base64"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [7000, 12_000, 30_000])
def test_a_picture_too_large_is_refused_by_its_header(side: int) -> None:
    """No pixel is decoded: the file has none."""
    error = refusal(png_header_only(side, side))
    assert error.code == "image_too_large"
    assert "scale it down" in str(error)


def test_too_small_and_too_long_pictures_are_refused() -> None:
    assert refusal(encoded(Image.new("RGB", (40, 8)))).code == "image_too_small"
    assert refusal(encoded(Image.new("RGB", (800, 20)))).code == "image_aspect"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused_as_damaged(image_format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    whole = base64.b64decode(encoded(noise, image_format))
    assert refusal(base64.b64encode(whole[: len(whole) // 2]).decode()).code in ("image_damaged", "image_format")


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (60, 30), "black")
    image.paste((255, 255, 255), (0, 0, 60, 10))  # white at the top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the top becomes the right side
    picture = decode_image(encoded(image, "JPEG", exif=exif, quality=95), max_pixels=LIMIT)
    assert (picture.width, picture.height) == (30, 60)
    assert np.asarray(picture.rgb)[30, 27].mean() > 200
    assert np.asarray(picture.rgb)[30, 5].mean() < 60


def test_transparency_shows_white() -> None:
    picture = decode_image(encoded(Image.new("RGBA", (32, 32), (255, 0, 0, 0))), max_pixels=LIMIT)
    assert np.asarray(picture.rgb).min() == 255


def test_a_sixteen_bit_grey_picture_keeps_its_middle_grey() -> None:
    grey = Image.fromarray(np.full((32, 32), 32768, dtype=np.uint16))
    picture = decode_image(encoded(grey), max_pixels=LIMIT)
    assert abs(int(np.asarray(picture.rgb)[0, 0, 0]) - 128) <= 1


def test_what_is_kept_is_bounded_and_the_sent_size_is_reported() -> None:
    picture = decode_image(encoded(Image.new("RGB", (4600, 3000), "blue"), "JPEG"), max_pixels=LIMIT)
    assert picture.rgb.width * picture.rgb.height <= KEPT_PIXELS
    assert (picture.width, picture.height) == (4600, 3000)
