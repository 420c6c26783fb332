"""An image as every backend looks at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from PIL import Image

from contracts.refusal import Refusal
from web.worker.image import FORMATS, decode_image

KEPT_PIXELS = 2_400_000  # more detail than any of the engines looks at
MAX_ASPECT = 100  # what is longer, Qwen's processors refuse from 200 on, and shows nothing before
_SMALL_SIDE = 160
_LOOKED_AT = 512  # pixels of the longer side, in which sharpness is measured
_DARK, _DARKEST_BRIGHT = 28.0, 70.0  # of 255: the mean, and what nineteen of twenty pixels are below
_BLURRED = 14.0  # mean square of the Laplacian

Fault = Literal["dark", "blurred", "small"]
SAID: Mapping[Fault, str] = {
    "dark": "The picture is dark: what is in it may be seen wrongly.",
    "blurred": "The picture is not sharp: details may be seen wrongly, and the video begins as blurred.",
    "small": f"The picture is smaller than {_SMALL_SIDE} pixels: details may be seen wrongly.",
}


class AspectRefusedError(Refusal):
    """It is too long for its width."""

    status, code, title = 422, "image_aspect", "The picture is too long and thin"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """A decoded image: `rgb` of at most `KEPT_PIXELS`; `width`, `height` as sent, in pixels."""

    rgb: Image.Image
    width: int
    height: int
    faults: tuple[Fault, ...] = ()
    """What makes it hard to see."""

    @classmethod
    def of(
        cls, data: bytes, formats: tuple[str, ...] = FORMATS, *, max_pixels: int | None = None, judged: bool = True
    ) -> Self:
        """Decode it, to `max_pixels` at most; only where it is `judged` its faults are known.

        Raises `ImageUnreadable`, `AspectRefusedError`.
        """
        rgb = decode_image(data, formats)
        width, height = rgb.size
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise AspectRefusedError(
                f"The picture has {width}x{height} pixels; one side may be at most {MAX_ASPECT} times the other.")
        faults = faults_of(rgb) if judged else ()
        scale = (min(KEPT_PIXELS, max_pixels or KEPT_PIXELS) / (width * height)) ** 0.5
        if scale < 1:
            rgb = rgb.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BOX)
        return cls(rgb=rgb, width=width, height=height, faults=faults)


def faults_of(rgb: Image.Image) -> tuple[Fault, ...]:
    """Measured on a copy of at most 512 pixels: 2 ms. A flat area is not blurred: there is nothing to be sharp."""
    found: list[Fault] = []
    if min(rgb.size) < _SMALL_SIDE:
        found.append("small")
    grey = rgb.convert("L")
    grey.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
    shades = np.asarray(grey, dtype=np.float32)
    if shades.mean() < _DARK and np.percentile(shades, 95) < _DARKEST_BRIGHT:
        found.append("dark")
    elif "small" not in found and shades.std() > 12 and min(shades.shape) > 2:
        edges = 4 * shades[1:-1, 1:-1] - shades[:-2, 1:-1] - shades[2:, 1:-1] - shades[1:-1, :-2] - shades[1:-1, 2:]
        if float((edges**2).mean()) < _BLURRED:
            found.append("blurred")
    return tuple(found)
