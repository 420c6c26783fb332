"""The first frame: from the base64 of a request to a picture of exactly the video's size. Needs no torch."""

import base64
import binascii
import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PICTURE_PIXELS = 50_000_000


class PictureUnreadable(ValueError):
    """The bytes are no usable picture; the message says why and what to send."""


def read_picture(image_base64: str) -> Image.Image:
    """Decode base64 of a PNG, JPEG or WebP into an upright RGB picture; transparency goes onto white.

    Raises `PictureUnreadable`.
    """
    try:
        data = base64.b64decode(image_base64, validate=True)
    except binascii.Error as error:
        raise PictureUnreadable("image is not valid base64; send the bytes of a PNG, JPEG or WebP in base64") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MAX_PICTURE_PIXELS:
                raise PictureUnreadable(
                    f"{picture.width}x{picture.height} is above {MAX_PICTURE_PIXELS} pixels; scale the picture down"
                )
            picture.load()
    except UnidentifiedImageError as error:
        raise PictureUnreadable("the image is no PNG, JPEG or WebP") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if isinstance(error, PictureUnreadable):
            raise
        raise PictureUnreadable(f"the image cannot be decoded, it may be truncated: {error}") from error
    return _flat_rgb(ImageOps.exif_transpose(picture))


def fit_picture(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale with Lanczos to cover `width` x `height`, then crop the centre."""
    return ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))


def _flat_rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
