"""What a file's container says, read before any decoder sees a byte."""

from dataclasses import dataclass
from typing import Final, Literal

ByteOrder = Literal["little", "big"]

ORIENTATION_TAG: Final = 0x0112
_SHORT, _LONG, _BYTE = 3, 4, 1
_SIZES: Final = {_BYTE: 1, _SHORT: 2, _LONG: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """How the pixels are to be understood. `orientation` as in EXIF, 1 to 8; colour in the order in which it counts."""

    orientation: int = 1
    cicp: tuple[int, int] | None = None
    """Colour primaries and transfer function, by their numbers in ITU-T H.273."""
    icc: bytes | None = None
    srgb: bool = False
    gamma: float | None = None
    """PNG's gAMA: the exponent of the encoding, about 1/2.2."""
    key: tuple[int, ...] | None = None
    """The one colour that is transparent, in the numbers of the decoded image."""
    chromaticities: tuple[float, ...] | None = None
    """PNG's cHRM: x and y of white, red, green and blue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as its decoder gets it: what says nothing about pixels is left out where that can be."""

    data: bytes
    notes: Notes
    size: tuple[int, int] | None = None
    """Width and height in pixels as stored, where the container says them."""
    packed: bytes | None = None
    """The packed pixels of a PNG that can be decoded a band of rows at a time."""
    ends: bool = True
    """Whether the file says where it ends."""
    all_scans: bool = True
    """Whether a JPEG misses no scan of a progression."""
    scans: int = 1
    coefficient_bytes: float = 0.0
    """What a progressive JPEG's decoder keeps for each pixel."""


def orientation_place(tiff: bytes) -> tuple[int, int] | None:
    """(orientation, offset of its value) of the first orientation tag in a TIFF's first directory; `None` where there
    is none that can be read. Nothing in it is an error: a camera's metadata never decides whether an image is sound.
    """
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return None
    order: ByteOrder = "little" if tiff[:1] == b"I" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # past the end: short or empty, which reads as less

    directory = number(4, 4)
    for at in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(tiff) - 11), 12):
        if number(at, 2) == ORIENTATION_TAG:
            size = _SIZES.get(number(at + 2, 2))
            if size is None or number(at + 4, 4) != 1:
                return None
            value = number(at + 8, size)
            return (value, at + 8) if 1 <= value <= 8 else None
    return None


def orientation_of(exif: bytes) -> int:
    """1 to 8, as the EXIF says; 1 where it says nothing that can be read."""
    found = orientation_place(exif.removeprefix(b"Exif\0\0"))
    return found[0] if found else 1
