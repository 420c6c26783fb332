"""The colours of an image as a browser shows them: sRGB numbers, whatever its file counts in.

What says how colours are meant, the first that can be used: cICP or nclx in PNG, an ICC profile, sRGB, gAMA and cHRM
(W3C PNG, third edition, 4.3); in AVIF and HEIF a profile goes before nclx. None of them: the numbers are sRGB's.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from PIL import Image, ImageChops, ImageCms

from gateway.submit.images.icc import (
    CURVES,
    PRIMARIES,
    SRGB_PRIMARIES,
    grey_profile,
    power_curve,
    rgb_profile,
    srgb_curve,
)
from gateway.submit.images.source import Notes

Convert = Callable[[Image.Image], Image.Image]

_SPACES: Final = {"RGB": "RGB", "L": "GRAY", "I;16": "GRAY", "CMYK": "CMYK"}
_ENCODING_GAMMA: Final = 0.45455  # what PNG has files in sRGB say in gAMA, for readers that know no sRGB chunk
_16_TO_8: Final = [round(value / 257) for value in range(65536)]


def srgb_converter(mode: str, notes: Notes, *, profile_first: bool) -> Convert:
    """What makes RGB in sRGB of an image of mode RGB, L, I;16, CMYK or LAB."""
    if mode == "LAB":
        return _converter(mode, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))) or plain
    for profile in _profiles(notes, grey=mode in ("L", "I;16"), profile_first=profile_first):
        if profile is None:
            break
        if (convert := _through(mode, profile)) is not None:
            return convert
    return plain


def plain(image: Image.Image) -> Image.Image:
    """RGB by the numbers alone."""
    if image.mode == "I;16":
        image = image.convert("I").point(_16_TO_8, "L")
    return image.convert("RGB")


def _profiles(notes: Notes, *, grey: bool, profile_first: bool) -> Iterator[bytes | None]:
    """The candidates in their order; `None`: the numbers are sRGB's."""
    coded = _of_codes(notes.cicp, grey=grey)
    for candidate in (notes.icc, coded) if profile_first else (coded, notes.icc):
        if candidate is not None:
            yield candidate
    if notes.srgb or (notes.gamma is None and notes.chromaticities is None):
        yield None
        return
    primaries, gamma = notes.chromaticities or SRGB_PRIMARIES, notes.gamma
    usual = gamma is None or abs(gamma - _ENCODING_GAMMA) < 0.0005
    if usual and max(map(abs, map(float.__sub__, primaries, SRGB_PRIMARIES))) < 0.001:
        yield None
        return
    if gamma is None or gamma > 0.01:
        curve = srgb_curve if gamma is None else power_curve(1 / gamma)
        yield grey_profile(curve) if grey else rgb_profile(primaries, curve)


def _of_codes(cicp: tuple[int, int] | None, *, grey: bool) -> bytes | None:
    if cicp is None or (cicp[0] not in PRIMARIES and not grey) or cicp[1] not in CURVES:
        return None
    curve = CURVES[cicp[1]]
    return grey_profile(curve) if grey else rgb_profile(PRIMARIES[cicp[0]], curve)


def _through(mode: str, embedded: bytes) -> Convert | None:
    """The way through a profile; `None` where that is damaged or of another kind of image."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    space = embedded[16:20].decode("latin-1").strip()  # littleCMS's own name of it may be no text at all
    if space == "RGB" and mode in ("L", "I;16"):  # scanners write such greys; browsers take them as colours
        convert = _converter("RGB", profile)
        return None if convert is None else lambda image: convert(plain(image))
    return _converter(mode, profile) if _SPACES.get(mode) == space else None


def _converter(mode: str, profile: ImageCms.ImageCmsProfile) -> Convert | None:
    grey = mode in ("L", "I;16")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if grey:  # optimised, littleCMS has 33 points for 65,536 greys
        flags |= ImageCms.Flags.NOOPTIMIZE
    try:
        transform = ImageCms.buildTransform(
            profile, _srgb(), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags
        )
        if grey:
            return _by_table(mode, _applied(_ramp(mode), transform).getchannel("G").tobytes())
        if mode == "RGB" and _is_srgb(transform):
            return plain
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return lambda image: _applied(image, transform)


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # it is, but where it is asked to work in place
    result.info.pop("icc_profile", None)
    return result


def _by_table(mode: str, table: bytes) -> Convert:
    if mode == "L" and max(abs(grey - number) for number, grey in enumerate(table)) <= 1:
        return plain
    greys = list(table)
    return lambda image: (image.convert("I") if mode == "I;16" else image).point(greys, "L").convert("RGB")


@cache
def _ramp(mode: str) -> Image.Image:
    """Every grey of a mode."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    return Image.frombytes("I;16", (65536, 1), b"".join(grey.to_bytes(2, "little") for grey in range(65536)))


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether the transform changes nothing beyond rounding: so an image in sRGB keeps every number."""
    difference = ImageChops.difference(_applied(_colours(), transform), _colours())
    return all(isinstance(band, tuple) and band[1] <= 1 for band in difference.getextrema())


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@cache
def _colours() -> Image.Image:
    """Colours from all over: every grey, and a cube of 9 × 9 × 9."""
    greys = [(value, value, value) for value in range(256)]
    steps = [min(32 * at, 255) for at in range(9)]
    colours = greys + list(itertools.product(steps, repeat=3))
    return Image.frombytes("RGB", (len(colours), 1), b"".join(map(bytes, colours)))
