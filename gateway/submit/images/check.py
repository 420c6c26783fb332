"""A file of untrusted bytes → a checked image. Pure, blocking and heavy: `decoder.py` is where it runs."""

import io
import logging
from dataclasses import dataclass
from functools import reduce
from typing import Final

from PIL import Image, ImageChops

from gateway.submit.images.colour import Convert, srgb_converter
from gateway.submit.images.decode import Cost, Opened, cost_of, open_image, read_source
from gateway.submit.images.formats import Format, format_of
from gateway.submit.images.refusals import (
    ADVICE,
    ImageRefused,
    too_costly,
    too_many_bytes,
    too_many_pixels,
    truncated,
    unreadable,
    unsupported,
)
from gateway.submit.images.source import Notes

log = logging.getLogger(__name__)

MIN_SIDE: Final = 64
MAX_ASPECT: Final = 4.0
LOW_RESOLUTION_SIDE: Final = 720
LIGHT_BYTES: Final = 64 * 2**20
LIGHT_PIXELS: Final = 25_000_000
HEAVY_BYTES: Final = 208 * 2**20
HEAVY_PIXELS: Final = 3_000_000_000
_BAND_PIXELS: Final = 1_000_000
_NEARLY: Final = 0.02  # 4080 pixels are two times 2048 for our purposes: half the work, and no pixel is missed
_PHOTOGRAPHS: Final = ("JPEG", "WEBP", "AVIF", "HEIF")
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost; sides and areas in pixels of the header."""

    max_bytes: int
    max_pixels: int
    stored_long_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """An image encoded anew as RGB PNG (from a lossless format) or JPEG; sides in pixels as stored, upright."""

    data: bytes
    media_type: str
    width: int
    height: int
    warnings: tuple[str, ...]


class TooHeavy(Exception):
    """Decoding takes more than a light image may; nothing was decoded."""


def check_image(data: bytes, limits: ImageLimits, *, light: bool = False) -> CheckedImage:
    """Check, turn upright, bring to sRGB on white, reduce to the stored side, and encode again.

    Raises:
        ImageRefused: with the reason; nothing is kept. Whatever a decoder raises becomes one.
        TooHeavy: `light`, and it takes more than `LIGHT_BYTES` or `LIGHT_PIXELS`.
        MemoryError: it took more than the process may have.
    """
    if not data:
        raise ImageRefused("image_empty", f"The picture has no bytes. {ADVICE}")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    kind = format_of(data)
    try:
        return _checked(data, kind, limits, light=light)
    except (ImageRefused, TooHeavy, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise too_many_pixels(limits.max_pixels) from None
    except Exception as error:  # decoders raise of every kind on damaged bytes, and none of it is the server's fault
        log.info("a %s could not be decoded: %r", kind, error)
        breaks_off = isinstance(error, OSError) and ("truncated" in str(error) or "unexpected end" in str(error))
        raise (truncated() if breaks_off else unreadable()) from None


def _checked(data: bytes, kind: Format, limits: ImageLimits, *, light: bool) -> CheckedImage:
    source = read_source(data, kind)
    if source.size is not None:
        _check_area(source.size, limits)
        if kind == "WEBP":  # its decoder takes the memory when it is opened
            _check_cost(cost_of(source, kind, source.size), source.size, kind, light=light)
    opened = open_image(source, kind)
    _check_area(opened.size, limits)
    _check_shape(opened.size)
    _check_cost(opened.cost, opened.size, kind, light=light)
    image = _rendered(opened, limits.stored_long_side)
    encoded_as = "JPEG" if kind in _PHOTOGRAPHS else "PNG"
    return CheckedImage(
        data=_encoded(image, encoded_as), media_type=f"image/{encoded_as.lower()}", width=image.width,
        height=image.height, warnings=_warnings(opened),
    )


def _check_area(size: tuple[int, int], limits: ImageLimits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise too_many_pixels(limits.max_pixels, *size)


def _check_shape(size: tuple[int, int]) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageRefused(
            "image_too_small", f"The picture is {width}x{height}: each side needs at least {MIN_SIDE} pixels."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRefused(
            "image_too_narrow",
            f"The picture is {width}x{height}: crop it so that one side is at most {MAX_ASPECT:g} times the other.",
        )


def _check_cost(cost: Cost, size: tuple[int, int], kind: Format, *, light: bool) -> None:
    if cost.memory_bytes > HEAVY_BYTES:
        most = int(HEAVY_BYTES * size[0] * size[1] / cost.memory_bytes)
        raise too_many_pixels(most, *size, "progressive JPEG" if kind == "JPEG" else kind)
    if cost.work_pixels > HEAVY_PIXELS:
        raise too_costly()
    if light and (cost.memory_bytes > LIGHT_BYTES or cost.work_pixels > LIGHT_PIXELS):
        raise TooHeavy


def _factor(size: tuple[int, int], long_side: int) -> int:
    """By how much an image is made smaller as it is read; what is left to the stored side is resampled."""
    return max(1, int(max(size) / long_side + _NEARLY))


def _rendered(opened: Opened, long_side: int) -> Image.Image:
    """The image as it should be seen, RGB, `long_side` at most."""
    pixels = opened.load(_factor(opened.size, long_side))
    (width, height), factor = pixels.size, _factor(pixels.size, long_side)
    canvas = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    band = max(1, _BAND_PIXELS // (width * factor)) * factor
    convert: Convert | None = None
    for top in range(0, height, band):
        colours, alpha = _resolved(pixels.rows(top, min(top + band, height)), opened.notes)
        if factor > 1:
            colours, alpha = _reduced(colours, alpha, factor)
        if convert is None:
            convert = srgb_converter(colours.mode, opened.notes, profile_first=opened.format != "PNG")
        canvas.paste(_on_white(convert(colours), alpha), (0, top // factor))
    del pixels  # what was decoded is let go before more is needed
    if max(canvas.size) > long_side:
        canvas.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    turn = _TURNS.get(opened.notes.orientation)
    return canvas if turn is None else canvas.transpose(turn)


def _resolved(image: Image.Image, notes: Notes) -> tuple[Image.Image, Image.Image | None]:
    """Colours of mode RGB, L, I;16, CMYK or LAB, and how opaque they are (L) where the file says so."""
    mode = image.mode
    if mode in ("I", "F"):
        raise unsupported("a picture of 32-bit samples")
    if mode.startswith("I;16"):
        image = image.convert("I").convert("I;16")
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("P", "PA", "RGBa"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif mode == "La":
        image = image.convert("LA")
    elif mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):  # YCbCr, RGBX, HSV
        image = image.convert("RGB")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    return image, None if notes.key is None or mode == "P" else _unlike(image, notes.key)


def _unlike(image: Image.Image, key: tuple[int, ...]) -> Image.Image | None:
    """255 where a pixel is another colour than the transparent one, else 0."""
    bands = (image.convert("I"),) if image.mode == "I;16" else image.split()
    if len(bands) != len(key):
        return None
    numbers = range(65536 if image.mode == "I;16" else 256)
    unlike = [
        band.point([0 if number == own else 255 for number in numbers], "L")
        for band, own in zip(bands, key, strict=True)
    ]
    return reduce(ImageChops.lighter, unlike)


def _reduced(
    colours: Image.Image, alpha: Image.Image | None, factor: int
) -> tuple[Image.Image, Image.Image | None]:
    if colours.mode == "I;16":
        reduced = colours.convert("I").reduce(factor).convert("I;16")
        return reduced, None if alpha is None else alpha.reduce(factor)
    if alpha is None or colours.mode not in ("L", "RGB"):
        return colours.reduce(factor), None
    colours.putalpha(alpha)  # so that colours count as much as they are seen
    layered = colours.reduce(factor)
    return layered.convert(layered.mode[:-1]), layered.getchannel("A")


def _on_white(colours: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _encoded(image: Image.Image, encoded_as: str) -> bytes:
    out = io.BytesIO()
    if encoded_as == "PNG":
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def _warnings(opened: Opened) -> tuple[str, ...]:
    width, height = opened.size if opened.notes.orientation < 5 else opened.size[::-1]
    if min(width, height) >= LOW_RESOLUTION_SIDE:
        return ()
    return (
        f"The picture is {width}x{height}, below {LOW_RESOLUTION_SIDE} pixels on its short side: "
        "a larger one gives a sharper video.",
    )
