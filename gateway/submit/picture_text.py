"""A picture written as text: a web address as it is, a data URI or base64 in any of its dialects as bytes."""

import base64
import binascii
import re

from gateway.submit.images.refusals import ADVICE, ImageRefused, too_many_bytes

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
# What percent-encoding makes of base64's own characters; others need none, so a whole decoder is not wanted here.
_ENCODED = tuple((f"%{ord(char):02X}".encode(), char.encode()) for char in "+/= \r\n%")


def picture_text(text: str | None, max_image_bytes: int) -> bytes | str | None:
    """The picture's bytes, or its web address as it is. Raises `ImageRefused`."""
    if text is None:
        return None
    address = text.strip() if len(text) <= 16 * 1024 else text
    if address[:8].lower().startswith(("http://", "https://")):
        return address
    return decode_text(text, max_image_bytes)


def decode_text(text: str, max_bytes: int) -> bytes:
    """Bytes of a `data:` URI or of bare base64: also URL-safe, unpadded, percent-encoded, or with blanks in it.

    Raises:
        ImageRefused: it is a web address, no base64, or above `max_bytes`.
    """
    text = text.lstrip("\ufeff \t\r\n")
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else ("data:;base64", ",", text)
    if text[:8].lower().startswith(("http://", "https://")):
        raise ImageRefused(
            "image_url_not_allowed", f"Pictures by web address are not fetched here. {ADVICE}"
        )
    if not comma or not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
        raise ImageRefused("image_not_base64", "The data URI is not base64: write `data:image/png;base64,…`.")
    try:
        plain = _plain(body.encode("ascii"))
    except UnicodeEncodeError:
        raise _no_base64() from None
    if len(plain) * 3 // 4 > max_bytes + 1024:
        raise too_many_bytes(max_bytes)
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _no_base64() from None


def _plain(body: bytes) -> bytes:
    """The same in the one dialect that the decoder knows, without padding. Each step is one pass over megabytes."""
    if b"%" in body:
        for encoded, char in _ENCODED:
            body = body.replace(encoded, char).replace(encoded.lower(), char)
    body = body.translate(_URL_SAFE, delete=b"\t\r\n\f\v").strip(b" ")
    if b" " in body and _blanks_were_plus(body):
        body = body.replace(b" ", b"+")
    return body.translate(None, delete=b" ").rstrip(b"=")


def _blanks_were_plus(body: bytes) -> bool:
    """Whether the blanks are what a form's decoder made of `+`: then the length is right with them, or they do not come
    at even distances, as between the lines of a text."""
    with_them, without = len(body), len(body) - body.count(b" ")
    if body.endswith(b"=") and (with_them % 4 == 0) != (without % 4 == 0):
        return with_them % 4 == 0
    first = body.find(b" ")
    return any(body[at : at + 1] != b" " for at in range(first, min(len(body), 20 * (first + 1)), first + 1))


def _no_base64() -> ImageRefused:
    return ImageRefused(
        "image_not_base64", "`image` is no valid base64: send a data URI or the bare base64 of the file's bytes."
    )
