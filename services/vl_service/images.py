"""Untrusted base64 → a decoded RGB picture of bounded size."""

import base64
import binascii
import io
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from contracts.errors import Refusal

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 16
MAX_ASPECT = 20.0
KEPT_PIXELS = 2_400_000  # more detail than any of the engines looks at; bounds the memory of queued pictures


class ImageRefusedError(Refusal):
    """The bytes are not an image that this service reads; `code` is stable, the message says what to do."""

    title = "The picture was refused"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # pyright: ignore[reportAttributeAccessIssue] - a case's, where others have a kind's
        self.status = 413 if code == "image_too_large" else 422  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """A decoded picture: `rgb` upright and at most `KEPT_PIXELS`; `width`, `height` as sent, in pixels."""

    rgb: Image.Image
    width: int
    height: int


def decode_image(image_base64: str, *, max_pixels: int) -> DecodedImage:
    """Decode a base64 PNG, JPEG or WebP; the first frame where there are several.

    Raises:
        ImageRefusedError: not base64, not an allowed format, too large or too small by its header, or damaged.
    """
    try:
        data = base64.b64decode(image_base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRefusedError("image_not_base64", "`image` is not base64; send the bare base64 of the file, "
                                  "without a data: prefix or line breaks.") from error
    return decode_bytes(data, max_pixels=max_pixels)


def decode_bytes(data: bytes, *, max_pixels: int) -> DecodedImage:
    """As `decode_image`, of the file's bytes."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            _check_size(width, height, max_pixels)
            return _upright_rgb(opened)
    except Image.DecompressionBombError as error:
        raise _too_large(max_pixels) from error
    except UnidentifiedImageError as error:
        raise ImageRefusedError(
            "image_format", "`image` is not a PNG, JPEG or WebP file; convert it to one of them.") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:  # what Pillow's decoders raise
        raise ImageRefusedError(
            "image_damaged", f"`image` is cut short or damaged ({error}); save it again and retry.") from error


def _too_large(max_pixels: int) -> ImageRefusedError:
    return ImageRefusedError(
        "image_too_large", f"`image` has more than {max_pixels:,} pixels; scale it down and retry.")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(max_pixels)
    if min(width, height) < MIN_SIDE:
        raise ImageRefusedError("image_too_small", f"`image` is {width}x{height}; send at least {MIN_SIDE} pixels "
                                  "a side.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRefusedError("image_aspect", f"`image` is {width}x{height}; crop it to an aspect ratio of at most "
                                  f"{MAX_ASPECT:.0f}:1.")


def _upright_rgb(opened: Image.Image) -> DecodedImage:
    sent = opened.size
    if opened.width * opened.height > 4 * KEPT_PIXELS:
        # JPEG only: decode at a half, quarter or eighth, still above what is kept
        scale = (KEPT_PIXELS / (opened.width * opened.height)) ** 0.5
        opened.draft("RGB", (int(opened.width * scale), int(opened.height * scale)))
    turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    upright = ImageOps.exif_transpose(opened)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        # a cut-out is looked at on white, as a page would show it
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = _eight_bit(upright).convert("RGB")
    scale = (KEPT_PIXELS / (rgb.width * rgb.height)) ** 0.5
    if scale < 1:
        rgb = rgb.resize((max(1, int(rgb.width * scale)), max(1, int(rgb.height * scale))), Image.Resampling.BOX)
    width, height = (sent[1], sent[0]) if turned else sent
    return DecodedImage(rgb=rgb, width=width, height=height)


def _eight_bit(image: Image.Image) -> Image.Image:
    # 16-bit grey PNG: Pillow's own conversion clips at 255 and would turn nearly every pixel white
    if image.mode.startswith("I") or image.mode == "F":
        return image.convert("F").point(lambda value: value * (255 / 65535)).convert("L")
    return image
