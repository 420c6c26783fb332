"""Untrusted bytes → a checked picture: one frame, upright, RGB, re-encoded by us."""

import base64
import binascii
import io
import warnings
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageCms, ImageOps

MIN_SIDE: Final = 64
MAX_ASPECT: Final = 4.0
LOW_RESOLUTION_SIDE: Final = 720
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_PROFILED_MODES: Final = ("RGB", "RGBA", "L", "CMYK")
_ADVICE: Final = "Send one PNG, JPEG or WebP picture."
# First bytes of what people send by mistake: a refusal that names it helps more than "unknown".
_KNOWN_STRANGERS: Final = (
    (0, b"GIF8", "a GIF"), (0, b"BM", "a BMP"), (0, b"II*\0", "a TIFF"), (0, b"MM\0*", "a TIFF"), (0, b"%PDF", "a PDF"),
    (4, b"ftyphei", "a HEIC picture"), (4, b"ftypmif1", "a HEIF picture"), (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "a video"), (0, b"<svg", "an SVG drawing"), (0, b"<?xml", "an XML or SVG document"),
    (0, b"PK\3\4", "a ZIP archive"), (0, b"{", "a JSON text"), (0, b"\x1aE\xdf\xa3", "a video"),
)


class PictureRefused(ValueError):
    """The bytes are no picture that we take: a stable `code`, and in words what to do. Nothing was stored."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """What a picture may cost; sides and areas in pixels of the header."""

    max_bytes: int
    max_pixels: int
    stored_long_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A checked picture, encoded anew as RGB PNG (from PNG) or JPEG; sides in pixels as stored, upright."""

    data: bytes
    media_type: str
    width: int
    height: int
    warnings: tuple[str, ...]


def harden_pillow(max_pixels: int) -> None:
    """Make Pillow itself refuse pictures beyond `max_pixels`; once per process, beside our own header check."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode_text(text: str, max_bytes: int) -> bytes:
    """Bytes of a `data:` URI or of bare base64.

    Raises:
        PictureRefused: it is a web address, no base64, or above `max_bytes`.
    """
    head, _, body = text.partition(",") if text[:5].lower() == "data:" else ("data:;base64", "", text)
    if text[:8].lower().startswith(("http://", "https://")):
        raise PictureRefused("image_url_not_allowed", f"Pictures by web address are not fetched here. {_ADVICE}")
    if not head.lower().endswith(";base64"):
        raise PictureRefused("image_not_base64", "The data URI is not base64: write `data:image/png;base64,…`.")
    if len(body) * 3 // 4 > max_bytes + 1024:
        raise too_many_bytes(max_bytes)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise PictureRefused(
            "image_not_base64", "`image` is no valid base64: send a data URI or the bare base64 of the file's bytes."
        ) from None


def too_many_bytes(max_bytes: int) -> PictureRefused:
    """The refusal of a picture above `max_bytes`."""
    return PictureRefused(
        "image_too_many_bytes", f"The picture is larger than {max_bytes / 2**20:g} MiB: make it smaller and resend."
    )


def check_picture(data: bytes, limits: PictureLimits) -> Picture:
    """Check and re-encode. Blocking and heavy: call it off the event loop.

    Raises:
        PictureRefused: with the reason; nothing is kept.
    """
    if not data:
        raise PictureRefused("image_empty", f"The picture has no bytes. {_ADVICE}")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    with _open(data, limits) as opened:
        _check_header(opened, limits)
        encoded_as = "PNG" if opened.format == "PNG" else "JPEG"
        original = _upright_size(opened)
        image = _decode(opened, limits.stored_long_side)
    found = []
    if min(original) < LOW_RESOLUTION_SIDE:
        found.append(
            f"The picture is {original[0]}x{original[1]}, below {LOW_RESOLUTION_SIDE} pixels on its short side: "
            "a larger one gives a sharper video."
        )
    return Picture(
        data=_encode(image, encoded_as), media_type=f"image/{encoded_as.lower()}", width=image.width,
        height=image.height, warnings=tuple(found),
    )


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)  # reads the header only
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(limits) from None
    except Image.UnidentifiedImageError:
        raise _unknown_format(data, limits) from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise _unreadable() from None


def _check_header(image: Image.Image, limits: PictureLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits, width, height)
    # MPO is what many phones write for a JPEG: its further pictures are previews, not frames.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PictureRefused("image_animated", f"The {image.format} is animated: send a single still picture.")
    if min(width, height) < MIN_SIDE:
        raise PictureRefused(
            "image_too_small", f"The picture is {width}x{height}: each side needs at least {MIN_SIDE} pixels."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureRefused(
            "image_too_narrow",
            f"The picture is {width}x{height}: crop it so that one side is at most {MAX_ASPECT:g} times the other.",
        )


def _decode(image: Image.Image, long_side: int) -> Image.Image:
    try:
        image.draft("RGB", (long_side, long_side))  # lets JPEG decode reduced by 2, 4 or 8: less time and memory
        image.load()
        upright = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureRefused("image_too_many_pixels", "The picture unpacks to too much: save it anew.") from None
    except OSError as error:
        if "truncated" in str(error) or "unexpected end" in str(error):
            raise PictureRefused(
                "image_truncated", "The picture breaks off before its end: upload the whole file again."
            ) from None
        raise _unreadable() from None
    except (SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, ZeroDivisionError, MemoryError):
        raise _unreadable() from None
    flat = _flatten(_in_srgb(upright))
    if max(flat.size) > long_side:
        flat.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    return flat


def _in_srgb(image: Image.Image) -> Image.Image:
    """The picture with its colours as sRGB, which is what models and browsers take numbers without a profile for."""
    embedded = image.info.pop("icc_profile", None)
    if not embedded or image.mode not in _PROFILED_MODES:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGBA" if image.mode == "RGBA" else "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a profile that is damaged or of another kind of picture says nothing about this one
    if converted is None:
        return image
    converted.info.pop("icc_profile", None)  # Pillow notes that of sRGB, and would write it into every PNG
    return converted


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255 instead of scaling
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        ground.alpha_composite(layered)
        image = ground
    return image.convert("RGB")


def _encode(image: Image.Image, encoded_as: str) -> bytes:
    out = io.BytesIO()
    if encoded_as == "PNG":
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def _upright_size(image: Image.Image) -> tuple[int, int]:
    try:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def _too_many_pixels(limits: PictureLimits, width: int = 0, height: int = 0) -> PictureRefused:
    given = f"is {width}x{height}, above" if width else "has more than"
    return PictureRefused(
        "image_too_many_pixels",
        f"The picture {given} {limits.max_pixels / 1e6:g} million pixels: scale it down and resend.",
    )


def _unknown_format(data: bytes, limits: PictureLimits) -> PictureRefused:
    if data.startswith(b"\x89PNG") and data[12:16] == b"IHDR":  # it may break off before Pillow has seen enough
        width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
        if width * height > limits.max_pixels:
            return _too_many_pixels(limits, width, height)
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff")) or data[8:12] == b"WEBP":
        return _unreadable()
    start = data[:64].lstrip()
    for offset, magic, name in _KNOWN_STRANGERS:
        if start[offset : offset + len(magic)] == magic:
            return PictureRefused("image_format_unsupported", f"This is {name}. {_ADVICE}")
    return PictureRefused("image_format_unsupported", f"The bytes are no PNG, JPEG or WebP picture. {_ADVICE}")


def _unreadable() -> PictureRefused:
    return PictureRefused(
        "image_unreadable", "The picture's bytes are damaged: open and save it in a picture program, then resend."
    )
