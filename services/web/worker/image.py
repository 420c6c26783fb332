"""The pixels of an image that the gateway checked, and such an image in another size."""

import io

from PIL import Image, ImageOps

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


def fit_picture(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale with Lanczos to cover `width` x `height`, then crop the centre."""
    return ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))
