"""The size of a WebP, which its decoder takes memory for as soon as it is opened (RFC 9649)."""

from gateway.submit.images.source import Notes, Source


def read_webp(data: bytes) -> Source:
    """The file as it is, and its size where its first chunk says one."""
    return Source(data=data, notes=Notes(), size=_size(data[12:16], data[20:30]))


def _size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
