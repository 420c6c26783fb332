"""A JPEG's segments (ITU-T T.81, annex B): tables and scans go on to the decoder, metadata is read here."""

import re
from dataclasses import dataclass, field
from typing import Final

from gateway.submit.images.refusals import too_costly
from gateway.submit.images.source import Notes, Source, orientation_of

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MAX_SCANS: Final = 500
_ICC, _EXIF = b"ICC_PROFILE\0", b"Exif\0\0"


@dataclass(slots=True)
class _Walk:
    kept: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    exif: bytes = b""
    profile: dict[int, bytes] = field(default_factory=dict)
    scans: int = 0
    progressive: bool = False
    coefficient_bytes: float = 0.0
    refined: dict[tuple[int, int], int] = field(default_factory=dict)
    """The lowest bit that was sent so far of each component's coefficients, in progressive files."""
    components: list[int] = field(default_factory=list)
    size: tuple[int, int] | None = None


def read_jpeg(data: bytes) -> Source:
    """Its tables and scans, and its notes; what follows the end (a phone's previews, a video) is left out.

    Whether the last scan itself is whole where no end marker follows, only the decoder can tell.

    Raises:
        ImageRefused: it has more scans than any encoder writes.
    """
    walk, at = _Walk(), 2
    while (found := data.find(b"\xff", at)) >= 0:
        at = found + 1
        while data[at : at + 1] == b"\xff":
            at += 1
        marker = data[at] if at < len(data) else 0
        at += 1
        if marker == _EOI:
            walk.kept.append(b"\xff\xd9")
            return _source(walk, ends=True)
        if marker in _ALONE or marker in (0, _SOI):
            continue
        length = int.from_bytes(data[at : at + 2])
        segment = data[at + 2 : at + length]
        end = at + length
        if marker == _SOS:
            scan = _NEXT_MARKER.search(data, end)
            end = scan.start() if scan else len(data)
            _count_scan(walk, segment)
            if walk.scans > _MAX_SCANS:
                raise too_costly()
        if _goes_on(walk, marker, segment):
            walk.kept.append(b"\xff" + data[at - 1 : end])
        at = end
    return _source(walk, ends=False)


def _goes_on(walk: _Walk, marker: int, segment: bytes) -> bool:
    """Note what a segment says; true where the decoder needs it."""
    if marker in _FRAMES and not walk.components and len(segment) >= 6:
        parts = [segment[at : at + 3] for at in range(6, len(segment) - 2, 3)]
        walk.components = [part[0] for part in parts]
        walk.size = (int.from_bytes(segment[3:5]), int.from_bytes(segment[1:3]))
        walk.progressive = marker in _PROGRESSIVE
        sampling = [(part[1] >> 4, part[1] & 15) for part in parts]
        most = max((wide for wide, _ in sampling), default=1) * max((high for _, high in sampling), default=1)
        walk.coefficient_bytes = 2 * sum(wide * high for wide, high in sampling) / max(most, 1)
    elif marker == _APP1 and segment.startswith(_EXIF):
        walk.exif = walk.exif or segment
    elif marker == _APP2 and segment.startswith(_ICC):
        walk.profile.setdefault(segment[12] if len(segment) > 12 else 0, segment[14:])
    return marker == _APP14 or not (_APP0 < marker <= 0xEF or marker == _COMMENT)


def _count_scan(walk: _Walk, header: bytes) -> None:
    walk.scans += 1
    count = header[0] if header else 0
    if walk.progressive and len(header) >= 4 + 2 * count:
        first, last, approximation = header[-3:]
        for component in header[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                walk.refined[component, coefficient] = approximation & 15


def _source(walk: _Walk, *, ends: bool) -> Source:
    whole = not walk.progressive or (
        len(walk.refined) == 64 * len(walk.components) and not any(walk.refined.values())
    )
    profile = b"".join(walk.profile[number] for number in sorted(walk.profile))
    return Source(
        data=b"".join(walk.kept), size=walk.size, ends=ends,
        notes=Notes(orientation=orientation_of(walk.exif), icc=profile or None),
        scans=walk.scans if walk.progressive else 1, all_scans=whole,
        coefficient_bytes=walk.coefficient_bytes if walk.progressive else 0.0,
    )
