"""Untrusted bytes: what is taken, what is refused, and that a refusal leaves nothing behind."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from gateway.submit.uploads import Picture, PictureLimits, PictureRefused, check_picture, decode_text, harden_pillow

LIMITS = PictureLimits(max_bytes=20 * 2**20, max_pixels=50_000_000, stored_long_side=2048)
MakePicture = Callable[..., bytes]
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # our own check comes second


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def animation(kind: str) -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (100, 100), color) for color in ("red", "green", "blue")]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def checked(data: bytes) -> Picture:
    return check_picture(data, LIMITS)


def as_image(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.data))


def noise_jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((400, 400), 80).convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "image_empty"),
    "text": (b"hello, I am a picture", "image_format_unsupported"),
    "html": (b"<html><body>404</body></html>", "image_format_unsupported"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format_unsupported"),
    "pdf": (b"%PDF-1.7\n", "image_format_unsupported"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "image_format_unsupported"),
    "gif": (animation("GIF"), "image_format_unsupported"),
    "animated png": (animation("PNG"), "image_animated"),
    "animated webp": (animation("WEBP"), "image_animated"),
    "truncated jpeg": (noise_jpeg()[:20_000], "image_truncated"),
    "jpeg cut in its header": (noise_jpeg()[:40], "image_unreadable"),
    "png of 900 million pixels": (png_header(30_000, 30_000), "image_too_many_pixels"),
    "the same, ending after its header": (png_header(30_000, 30_000)[:33], "image_too_many_pixels"),
    "png of 81 million pixels": (png_header(9_000, 9_000), "image_too_many_pixels"),
    "png without its pixels": (png_header(200, 200), "image_truncated"),
    "png with a wrong checksum": (png_header(200, 200).replace(b"IDAT", b"IDAX"), "image_unreadable"),
    "png of no size": (png_header(0, 100), "image_unreadable"),
    "png signature alone": (b"\x89PNG\r\n\x1a\n", "image_unreadable"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(21 * 2**20), "image_too_many_bytes"),
}


@pytest.mark.parametrize(("data", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_single_sound_picture_is_refused_with_its_own_code_and_advice(data: bytes, code: str) -> None:
    with pytest.raises(PictureRefused) as refused:
        checked(data)
    assert refused.value.code == code
    assert len(refused.value.detail) > 30, "a sentence that says what to do"


@pytest.mark.parametrize(
    ("size", "code"),
    [((63, 100), "image_too_small"), ((100, 63), "image_too_small"), ((401, 100), "image_too_narrow"),
     ((100, 500), "image_too_narrow")],
)
def test_too_small_and_too_narrow_pictures_are_refused(picture: MakePicture, size: tuple[int, int], code: str) -> None:
    with pytest.raises(PictureRefused) as refused:
        checked(picture(*size))
    assert refused.value.code == code
    assert f"{size[0]}x{size[1]}" in refused.value.detail


@pytest.mark.parametrize("size", [(64, 64), (256, 64), (64, 256)])
def test_the_limits_themselves_are_taken(picture: MakePicture, size: tuple[int, int]) -> None:
    result = checked(picture(*size))
    assert (result.width, result.height) == size


def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded() -> None:
    tracemalloc.start()
    with pytest.raises(PictureRefused):
        checked(png_header(30_000, 30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "MPO"])
def test_the_three_formats_and_a_phones_multi_picture_jpeg_are_taken_by_content(
    picture: MakePicture, kind: str
) -> None:
    more = {"save_all": True, "append_images": [Image.new("RGB", (320, 240))]} if kind == "MPO" else {}
    result = checked(picture(kind=kind, **more))
    image = as_image(result)
    assert image.mode == "RGB"
    assert image.format == ("PNG" if kind == "PNG" else "JPEG")
    assert result.media_type == ("image/png" if kind == "PNG" else "image/jpeg")
    assert (result.width, result.height) == image.size == (320, 240)


def test_a_png_keeps_every_pixel(picture: MakePicture) -> None:
    original = picture()
    assert as_image(checked(original)).tobytes() == Image.open(io.BytesIO(original)).tobytes()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied_and_exif_is_gone(orientation: int) -> None:
    # red on the left, blue on the right, as it should be seen
    seen = Image.new("RGB", (200, 100), "red")
    seen.paste("blue", (100, 0, 200, 100))
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = seen if turn[orientation] is None else seen.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    stored.save(out, "JPEG", exif=exif, quality=95)
    image = as_image(checked(out.getvalue()))
    assert image.size == (200, 100)
    red, blue = (image.crop((x, 40, x + 20, 60)).resize((1, 1)).tobytes() for x in (20, 160))
    assert red[0] > 200 > 50 > red[2]
    assert blue[2] > 200 > 50 > blue[0]
    assert not image.getexif()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(picture: MakePicture, mode: str) -> None:
    out = io.BytesIO()
    base = Image.open(io.BytesIO(picture()))
    image = Image.new("I;16", base.size, 32768) if mode == "I;16" else base.convert(mode)
    image.save(out, "PNG")
    result = as_image(checked(out.getvalue()))
    assert result.mode == "RGB"
    if mode == "I;16":
        assert result.getpixel((10, 10)) == (128, 128, 128), "16 bits are scaled, not clipped"


def test_transparency_becomes_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(out, "PNG")
    assert as_image(checked(out.getvalue())).getpixel((50, 50)) == (255, 255, 255)


def test_a_cmyk_jpeg_is_taken() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (100, 100), (0, 0, 0, 0)).save(out, "JPEG")
    assert as_image(checked(out.getvalue())).getpixel((50, 50)) == (255, 255, 255)


def test_large_pictures_are_reduced_to_the_stored_long_side(picture: MakePicture) -> None:
    result = checked(picture(5000, 2500, kind="JPEG"))
    assert (result.width, result.height) == (2048, 1024)
    assert result.warnings == (), "judged by the size that came"


def test_a_low_resolution_is_taken_with_a_warning(picture: MakePicture) -> None:
    assert "720" in checked(picture(1280, 719)).warnings[0]
    assert checked(picture(1280, 720)).warnings == ()


def test_what_came_beside_the_pixels_does_not_survive(picture: MakePicture) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "<script>secret</script>")
    assert b"secret" not in checked(picture(pnginfo=info) + b"secret trailing bytes").data


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("https://example.com/cat.png", "image_url_not_allowed"), ("http://169.254.169.254/", "image_url_not_allowed"),
        ("data:image/png,rawbytes", "image_not_base64"), ("not base64 at all!", "image_not_base64"),
        ("A" * 1000, "image_too_many_bytes"), ("data:image/png;base64," + "A" * 1000, "image_too_many_bytes"),
        ("QUJD=RA", "image_not_base64"),
    ],
)
def test_text_that_is_no_picture_in_base64_is_refused(text: str, code: str) -> None:
    limit = 100 if code == "image_too_many_bytes" else 10_000
    with pytest.raises(PictureRefused) as refused:
        decode_text(text * (20 if code == "image_too_many_bytes" else 1), limit)
    assert refused.value.code == code


def test_base64_may_be_wrapped_in_lines() -> None:
    assert decode_text("aGVs\nbG8=\r\n", 100) == b"hello"
    assert decode_text("DATA:image/png;base64,aGVsbG8=", 100) == b"hello"


def test_pillow_itself_is_hardened_too() -> None:
    harden_pillow(1_000_000)
    try:
        with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError)):
            Image.open(io.BytesIO(png_header(1_100, 1_000)))
    finally:
        harden_pillow(LIMITS.max_pixels)
