"""The pixels of an image that the gateway checked."""

import io

from PIL import Image

from contracts.refusal import Refusal

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 52_000_000


class ImageUnreadable(Refusal):
    """The bytes are no image as the gateway sends them; the message says why."""

    status, code, title = 422, "unreadable_image", "The image cannot be read"


def decode_image(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The RGB pixels of a file of these formats. Raises `ImageUnreadable`; for too large a one before it decodes."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height <= MAX_PIXELS:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageUnreadable(f"The image is no {' or '.join(formats)}, or is cut short: {error}") from error
    raise ImageUnreadable(f"The image has more than {MAX_PIXELS} pixels.")
