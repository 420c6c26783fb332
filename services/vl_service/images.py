"""An image as every backend looks at it."""

from dataclasses import dataclass
from typing import Self

from PIL import Image

from web.worker.image import FORMATS, decode_image

KEPT_PIXELS = 2_400_000  # more detail than any of the engines looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """A decoded image: `rgb` of at most `KEPT_PIXELS`; `width`, `height` as sent, in pixels."""

    rgb: Image.Image
    width: int
    height: int

    @classmethod
    def of(cls, data: bytes, formats: tuple[str, ...] = FORMATS) -> Self:
        """Decode it. Raises `ImageUnreadable`."""
        rgb = decode_image(data, formats)
        width, height = rgb.size
        scale = (KEPT_PIXELS / (width * height)) ** 0.5
        if scale < 1:
            rgb = rgb.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BOX)
        return cls(rgb=rgb, width=width, height=height)
