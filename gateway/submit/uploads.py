"""The bytes of an image that came as text."""

import base64
import binascii

from gateway.images.refusals import ADVICE, ImageRefused, too_many_bytes


def decode_text(text: str, max_bytes: int) -> bytes:
    """Bytes of a `data:` URI or of bare base64.

    Raises:
        ImageRefused: it is a web address, no base64, or above `max_bytes`.
    """
    head, _, body = text.partition(",") if text[:5].lower() == "data:" else ("data:;base64", "", text)
    if text[:8].lower().startswith(("http://", "https://")):
        raise ImageRefused("image_url_not_allowed", f"Pictures by web address are not fetched here. {ADVICE}")
    if not head.lower().endswith(";base64"):
        raise ImageRefused("image_not_base64", "The data URI is not base64: write `data:image/png;base64,…`.")
    if len(body) * 3 // 4 > max_bytes + 1024:
        raise too_many_bytes(max_bytes)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ImageRefused(
            "image_not_base64", "`image` is no valid base64: send a data URI or the bare base64 of the file's bytes."
        ) from None
