"""Untrusted bytes: what is taken, what is refused, and how they should be seen."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from gateway.submit.images.refusals import ImageRefused
from tests.unit.gateway.submit.images.samples import (
    HEIC,
    as_image,
    checked,
    chunk,
    encoded,
    exif,
    noise,
    png_header,
    with_chunks,
    with_segment,
)

MakePicture = Callable[..., bytes]


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (100, 100), color) for color in ("red", "green", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def tiff_with_preview() -> bytes:
    preview = Image.new("RGB", (20, 10), "red")
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller copy of another image of the file
    return encoded(Image.new("RGB", (200, 100), "red"), "TIFF", save_all=True, append_images=[preview])


JPEG = noise(400, 400, "JPEG", quality=95)
PROGRESSIVE = noise(400, 400, "JPEG", quality=95, progressive=True)
LAST_SCAN = PROGRESSIVE.rindex(b"\xff\xda")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "image_empty"),
    "zeros": (bytes(1000), "image_unreadable"),
    "text": (b"hello, I am a picture", "image_format_unsupported"),
    "html": (b"<html><body>404</body></html>", "image_format_unsupported"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format_unsupported"),
    "pdf": (b"%PDF-1.7\n", "image_format_unsupported"),
    "heic of nothing": (b"\0\0\0\x18ftypheic\0\0\0\0", "image_unreadable"),
    "animated gif": (animation("GIF"), "image_animated"),
    "animated png": (animation("PNG"), "image_animated"),
    "animated webp": (animation("WEBP"), "image_animated"),
    "animated avif": (animation("AVIF"), "image_animated"),
    "tiff of three pages": (animation("TIFF"), "image_animated"),
    "truncated jpeg": (JPEG[:20_000], "image_truncated"),
    "jpeg without its last four bytes": (JPEG[:-4], "image_truncated"),
    "progressive jpeg without its last scan": (PROGRESSIVE[:LAST_SCAN], "image_truncated"),
    "progressive jpeg that stops in its last scan": (PROGRESSIVE[: LAST_SCAN + 2000], "image_truncated"),
    "jpeg cut in its header": (JPEG[:40], "image_unreadable"),
    "png of 900 million pixels": (png_header(30_000, 30_000), "image_too_many_pixels"),
    "the same, ending after its header": (png_header(30_000, 30_000)[:33], "image_too_many_pixels"),
    "png of 81 million pixels": (png_header(9_000, 9_000), "image_too_many_pixels"),
    "png without its pixels": (png_header(200, 200), "image_truncated"),
    "png with a wrong checksum": (png_header(200, 200).replace(b"IDAT", b"IDAX"), "image_unreadable"),
    "png of no size": (png_header(0, 100), "image_unreadable"),
    "png signature alone": (b"\x89PNG\r\n\x1a\n", "image_unreadable"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(21 * 2**20), "image_too_many_bytes"),
    "jpeg of too many scans": (PROGRESSIVE[:-2] + PROGRESSIVE[LAST_SCAN:LAST_SCAN + 90] * 600, "image_too_costly"),
}


@pytest.mark.parametrize(("data", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_single_sound_picture_is_refused_with_its_own_code_and_advice(data: bytes, code: str) -> None:
    with pytest.raises(ImageRefused) as refused:
        checked(data)
    assert refused.value.code == code
    assert len(refused.value.detail) > 30, "a sentence that says what to do"


@pytest.mark.parametrize(
    ("size", "code"),
    [((63, 100), "image_too_small"), ((100, 63), "image_too_small"), ((401, 100), "image_too_narrow"),
     ((100, 500), "image_too_narrow")],
)
def test_too_small_and_too_narrow_pictures_are_refused(picture: MakePicture, size: tuple[int, int], code: str) -> None:
    with pytest.raises(ImageRefused) as refused:
        checked(picture(*size))
    assert refused.value.code == code
    assert f"{size[0]}x{size[1]}" in refused.value.detail


@pytest.mark.parametrize("size", [(64, 64), (256, 64), (64, 256)])
def test_the_limits_themselves_are_taken(picture: MakePicture, size: tuple[int, int]) -> None:
    result = checked(picture(*size))
    assert (result.width, result.height) == size


def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded() -> None:
    tracemalloc.start()
    with pytest.raises(ImageRefused):
        checked(png_header(30_000, 30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "MPO", "AVIF", "GIF", "BMP", "TIFF"])
def test_every_format_and_a_phones_multi_picture_jpeg_is_taken_by_content(picture: MakePicture, kind: str) -> None:
    more = {"save_all": True, "append_images": [Image.new("RGB", (320, 240))]} if kind == "MPO" else {}
    result = checked(picture(kind=kind, **more))
    image = as_image(result)
    lossless = kind in ("PNG", "GIF", "BMP", "TIFF")
    assert (image.mode, image.format) == ("RGB", "PNG" if lossless else "JPEG")
    assert result.media_type == ("image/png" if lossless else "image/jpeg")
    assert (result.width, result.height) == image.size == (320, 240)


def test_a_heic_is_taken_where_its_decoder_is_installed() -> None:
    pytest.importorskip("pi_heif")
    result = checked(HEIC)
    assert (result.width, result.height, result.media_type) == (160, 96, "image/jpeg")
    left, right = (as_image(result).getpixel((x, 48)) for x in (5, 80))
    assert left != right


@pytest.mark.parametrize(("data", "size"), {
    "a JPEG without its end marker": (JPEG[:-2], (400, 400)),
    "half an end marker": (JPEG[:-1], (400, 400)),
    "a progressive one": (PROGRESSIVE[:-2], (400, 400)),
    "a JPEG with a video behind it": (JPEG + b"\0\0\0\x18ftypmp42" + bytes(5000), (400, 400)),
    "3 MB of compressed text": (
        with_chunks(noise(96, 96, "PNG"), chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000))), (96, 96)),
    "text with a wrong checksum": (
        with_chunks(noise(96, 96, "PNG"), chunk(b"tEXt", b"a\0b")[:-1] + b"?"), (96, 96)),
    "a profile with a wrong checksum": (
        with_chunks(noise(96, 96, "PNG"), chunk(b"iCCP", b"a\0\0b")[:-1] + b"?"), (96, 96)),
    "a chunk that nobody knows": (with_chunks(noise(96, 96, "PNG"), chunk(b"caBX", bytes(2_000_000))), (96, 96)),
    "a PNG without its end": (noise(96, 96, "PNG")[:-12], (96, 96)),
    "a still in an animation's clothes": (
        with_chunks(noise(96, 96, "PNG"), chunk(b"acTL", b"\0\0\0\1\0\0\0\0")), (96, 96)),
    "50 megapixels of a phone": (encoded(Image.new("RGB", (8160, 6144), "teal"), "JPEG"), (2040, 1536)),
    "and of another": (encoded(Image.new("L", (8192, 6144), 99), "JPEG"), (2048, 1536)),
    "a TIFF with a preview": (tiff_with_preview(), (200, 100)),
}.values(), ids=lambda value: None)
def test_sound_images_are_taken_though_their_files_are_odd(data: bytes, size: tuple[int, int]) -> None:
    image = checked(data)
    assert (image.width, image.height) == size


def test_a_png_keeps_every_pixel(picture: MakePicture) -> None:
    original = picture()
    assert as_image(checked(original)).tobytes() == Image.open(io.BytesIO(original)).tobytes()


def turned(orientation: int) -> tuple[Image.Image, Image.Image]:
    """Stored pixels, and how they should be seen: four colours, so that turns and mirrors are told apart."""
    stored = Image.new("RGB", (200, 100), "red")
    for colour, place in (("blue", (100, 0)), ("lime", (0, 50)), ("white", (100, 50))):
        stored.paste(colour, (*place, place[0] + 100, place[1] + 50))
    told = stored.copy()
    told.getexif()[0x0112] = orientation
    return stored, ImageOps.exif_transpose(told)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P"])
def test_a_large_png_is_the_same_pixel_for_pixel_though_it_is_read_in_bands(mode: str) -> None:
    """Rows are coded as differences from the row above: a band goes on where the one before ended."""
    streaks = Image.effect_noise((1100, 3), 80).resize((1100, 1300))  # so that rows are coded by the one above
    image = streaks.convert("RGB").convert(mode)
    kept = as_image(checked(encoded(image, "PNG")))
    assert kept.tobytes() == image.convert("RGB").tobytes()
    cut = encoded(image, "PNG")
    with pytest.raises(ImageRefused) as refused:
        checked(cut[: len(cut) * 3 // 4])
    assert refused.value.code == "image_truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_and_exif_is_gone(orientation: int, kind: str) -> None:
    stored, seen = turned(orientation)
    told = Image.Exif()
    told[0x0112] = orientation
    image = as_image(checked(encoded(stored, kind, exif=told, quality=95)))
    assert image.size == seen.size
    corners = [(20, 20), (seen.width - 20, 20), (20, seen.height - 20), (seen.width - 20, seen.height - 20)]
    for corner in corners:
        assert image.getpixel(corner) == pytest.approx(seen.getpixel(corner), abs=12)
    assert not image.getexif()


@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_that_cannot_be_read_turns_nothing_and_refuses_nothing(order: str) -> None:
    """Every type of field, known or not, on tags of every kind, beside an orientation that is turned all the same."""
    plain = encoded(Image.new("RGB", (120, 80), "red"), "JPEG")
    tags = (0x0100, 0x010F, 0x011A, 0x0132, 0x0213, 0x8298, 0x8769, 0x8825, 0x9286, 0x927C, 0xA005, 0xFFFE)
    for tag in tags:
        for kind in range(16):
            for count in (0, 1, 0xFFFFFFFF):
                odd = exif(6, (tag, kind, count, b"\xff\xff\xff\xff"), order=order)
                image = checked(with_segment(plain, 0xE1, b"Exif\0\0" + odd))
                assert (image.width, image.height) == (80, 120), (tag, kind, count)
    whole = exif(6, order=order)
    for at in range(len(whole)):
        checked(with_segment(plain, 0xE1, b"Exif\0\0" + whole[:at]))
    for kind in (0, 2, 5, 7, 13, 99):
        wrong = whole[:12] + struct.pack(order + "H", kind) + whole[14:]
        image = checked(with_segment(plain, 0xE1, b"Exif\0\0" + wrong))
        assert (image.width, image.height) == (120, 80)


def test_an_odd_tag_refuses_no_image_of_the_other_formats() -> None:
    told = Image.Exif()
    told[0x0112] = 6
    for kind in ("WEBP", "PNG", "TIFF"):
        data = encoded(Image.new("RGB", (120, 80), "red"), kind, exif=told)
        odd = exif(6, (0x0213, 1, 1, b"\1\0\0\0"), (0x8825, 2, 9, b"\0\xff\0\0"))
        if kind == "TIFF":
            data = data.replace(struct.pack("<HHL", 0x0112, 3, 1), struct.pack("<HHL", 0x0112, 4, 1))
        image = checked(data if kind == "TIFF" else encoded(Image.new("RGB", (120, 80), "red"), kind, exif=odd))
        assert (image.width, image.height) == (80, 120), kind


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
    data = encoded(Image.new("RGBA", (100, 100), (255, 0, 0, 0)), "PNG")
    assert as_image(checked(data)).getpixel((50, 50)) == (255, 255, 255)


def test_large_pictures_are_reduced_to_the_stored_long_side(picture: MakePicture) -> None:
    result = checked(picture(5000, 2500, kind="JPEG"))
    assert (result.width, result.height) == (2048, 1024)
    assert result.warnings == (), "judged by the size that came"


def test_a_low_resolution_is_taken_with_a_warning(picture: MakePicture) -> None:
    assert "720" in checked(picture(1280, 719)).warnings[0]
    assert checked(picture(1280, 720)).warnings == ()


def test_what_came_beside_the_pixels_does_not_survive(picture: MakePicture) -> None:
    info = PngInfo()
    info.add_text("Comment", "<script>secret</script>")
    assert b"secret" not in checked(picture(pnginfo=info) + b"secret trailing bytes").data
