"""A checked file → its pixels, a band of rows at a time, so that no step needs the whole image once more."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image, ImageChops, TiffImagePlugin

from gateway.submit.images.containers.isobmff import read_boxes
from gateway.submit.images.containers.jpeg import read_jpeg
from gateway.submit.images.containers.png import png_rows, read_png
from gateway.submit.images.containers.tiff import read_tiff
from gateway.submit.images.containers.webp import read_webp
from gateway.submit.images.formats import Format
from gateway.submit.images.refusals import several_frames, truncated, unsupported
from gateway.submit.images.source import Notes, Source, orientation_of

try:
    import pi_heif
except ImportError:  # there is no wheel of it for every platform
    pi_heif = None

_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
_REDUCED = 1  # bit of a TIFF's subfile type: a smaller copy of another image of the file
_ONE_BYTE, _TWO_BYTES = ("1", "L", "P"), ("I;16", "I;16L", "I;16B")
# What a decoder holds at its peak, measured; the rest holds the image once: 1, 2 or 4 bytes.
_BYTES_PER_PIXEL: Final = {"WEBP": 12.0, "AVIF": 5.5, "HEIF": 4.4, "TIFF": 6.5, "BMP": 6.5}
_HARD_CODECS: Final = {"AVIF": 4, "HEIF": 4}  # so much longer than others these take for a pixel
# No JPEG goes on like this: where its pixels change with it, they had not all come.
_GARBAGE: Final = bytes((at * 37 + 11) % 251 for at in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A decoded image, not turned; `rows(top, bottom)` gives a band of it."""

    size: tuple[int, int]
    rows: Callable[[int, int], Image.Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What decoding takes: memory at its peak, and pixels to go through, over all scans."""

    memory_bytes: float
    work_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An image whose header was read; `size` in pixels as stored."""

    format: Format
    size: tuple[int, int]
    notes: Notes
    cost: Cost
    load: Callable[[int], Pixels]
    """Decodes; a JPEG smaller by up to the given factor, in less time and memory."""


class _PlainTiff(TiffImagePlugin.TiffImageFile):
    """A TIFF whose metadata nobody touches: Pillow would turn it, and write its EXIF anew for that."""

    def load_end(self) -> None:
        return None


def read_source(data: bytes, kind: Format) -> Source:
    """What the container says. Raises `ImageRefused` for an animated PNG."""
    if kind == "PNG":
        return read_png(data)
    if kind == "JPEG":
        return read_jpeg(data)
    if kind == "WEBP":
        return read_webp(data)
    if kind in ("AVIF", "HEIF"):
        return read_boxes(data)
    if kind == "TIFF":
        return read_tiff(data)
    return Source(data=data, notes=Notes())


def open_image(source: Source, kind: Format) -> Opened:
    """Read the header; raises `ImageRefused` for several frames, and whatever the decoder raises."""
    if kind == "HEIF":
        return _open_heif(source)
    stream = io.BytesIO(source.data)
    image = _PlainTiff(stream) if kind == "TIFF" else Image.open(stream, formats=(kind,))
    if kind == "TIFF":
        _check_tiff(image)
    elif getattr(image, "is_animated", False):
        raise several_frames(kind)
    held = 1 if image.mode in _ONE_BYTE else 2 if image.mode in _TWO_BYTES else 4
    return Opened(
        format=kind, size=image.size, notes=_with_info(source.notes, image.info),
        cost=cost_of(source, kind, image.size, held),
        load=lambda factor: _load(image, source, kind, factor),
    )


def cost_of(source: Source, kind: Format, size: tuple[int, int], held: int = 4) -> Cost:
    """`held`: bytes of a pixel in memory."""
    pixels = size[0] * size[1]
    # A JPEG's pixels are decoded smaller at once; what it keeps of a progression it keeps in full.
    each = source.coefficient_bytes if kind == "JPEG" else _BYTES_PER_PIXEL.get(kind, held)
    if source.packed is not None:
        each = 0
    return Cost(memory_bytes=each * pixels, work_pixels=pixels * _HARD_CODECS.get(kind, source.scans))


def _check_tiff(image: Image.Image) -> None:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags: Any = image.tag_v2
    if _DNG_VERSION in tags:
        raise unsupported("a camera's raw picture (DNG)")
    if tags.get(_SUBFILE_TYPE, 0) == _REDUCED:
        raise unsupported("a camera's raw picture")
    try:
        image.seek(1)
    except EOFError:
        return
    copy = image.tag_v2.get(_SUBFILE_TYPE, 0) == _REDUCED
    if not copy:
        raise several_frames("TIFF")
    image.seek(0)


def _load(image: Any, source: Source, kind: Format, factor: int) -> Pixels:
    if kind == "JPEG":
        return _of_image(_whole_jpeg(source, factor))
    # Loaded as images, these would be held once more: by their decoder, as bytes, and as an image.
    if kind == "WEBP":
        return _of_bytes(image.size, image.mode, image.rawmode, image._decoder.get_next()[0])
    if kind == "AVIF":
        return _of_bytes(image.size, image.mode, image.mode, image._decoder.get_frame(0)[0])
    if source.packed is not None:
        return Pixels(size=image.size, rows=png_rows(source.packed, image.width, image.mode))
    image.load()
    return _of_image(image)


def _whole_jpeg(source: Source, factor: int) -> Image.Image:
    if source.ends:
        return _load_jpeg(source.data, factor)
    if not source.all_scans:
        raise truncated()
    entropy = source.data.rstrip(b"\xff")
    whole = _load_jpeg(entropy + b"\xff\xd9", factor)
    if ImageChops.difference(whole, _load_jpeg(entropy + _GARBAGE + b"\xff\xd9", factor)).getbbox():
        raise truncated()
    return whole


def _of_image(image: Image.Image) -> Pixels:
    return Pixels(size=image.size, rows=lambda top, bottom: image.crop((0, top, image.width, bottom)))


def _of_bytes(size: tuple[int, int], mode: str, coding: str, data: bytes) -> Pixels:
    stride = len(data) // size[1]

    def rows(top: int, bottom: int) -> Image.Image:
        band = data[top * stride : bottom * stride]
        return Image.frombytes(mode, (size[0], bottom - top), band, "raw", coding, stride, 1)

    return Pixels(size=size, rows=rows)


def _load_jpeg(data: bytes, factor: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft(image.mode, (image.width // factor, image.height // factor))
    image.load()
    return image


def _open_heif(source: Source) -> Opened:
    if pi_heif is None:
        raise unsupported("a HEIC picture, and this server has no decoder for it")
    pi_heif.options.DECODE_THREADS = 1
    file = pi_heif.open_heif(source.data)
    image = file[file.primary_index]
    mode = {"L": "L", "LA": "LA", "RGBA": "RGBA", "RGBa": "RGBa"}.get(image.mode, "RGB")

    profile = {"icc_profile": image.info.get("icc_profile")}  # libheif turns by itself: nothing else of it counts
    return Opened(
        format="HEIF", size=image.size, notes=_with_info(source.notes, profile),
        cost=cost_of(source, "HEIF", image.size),
        load=lambda _: _of_bytes(image.size, mode, image.mode, image.data),
    )


def _with_info(notes: Notes, info: dict[Any, Any]) -> Notes:
    """With what only the decoder found."""
    profile, exif, key = info.get("icc_profile"), info.get("exif"), info.get("transparency")
    if notes.icc is None and isinstance(profile, bytes):
        notes = replace(notes, icc=profile)
    if notes.orientation == 1 and isinstance(exif, bytes):
        notes = replace(notes, orientation=orientation_of(exif))
    if notes.key is None and isinstance(key, int):
        notes = replace(notes, key=(key,))
    return notes
