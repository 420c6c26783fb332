"""Picture facts by measurement alone: colour, light, sharpness, layout. No model and no guess about content."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl_service.embedded.vision.colours import ColourShare, FloatArray, lab_from_rgb, palette_of
from vl_service.embedded.vision.layout import Layout, measure_layout
from vl_service.embedded.vision.regions import measure_regions

WORKING_SIDE = 256  # pixels of the longer side that everything but the size is measured at


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What can be measured. Shares, brightness and positions are in 0..1, positions from the top left."""

    width: int
    height: int
    palette: tuple[ColourShare, ...]
    brightness: float
    """Mean CIELAB lightness / 100."""
    contrast: float
    """Distance from the 5th to the 95th percentile of lightness / 100."""
    colourfulness: float
    """Mean CIELAB chroma / 100; under 0.03 is a grey picture."""
    warmth: float
    """Mean CIELAB b* / 100: positive towards yellow, negative towards blue."""
    sharpness: float
    """Share of the lightness variation that lies in the finest detail."""
    layout: Layout
    regions: dict[str, tuple[ColourShare, ...]] = field(default_factory=dict[str, tuple[ColourShare, ...]])
    """Main colours of the parts of `regions.py`; one without an entry is not there, or was not measured."""


def measure_facts(picture: Image.Image, *, width: int, height: int) -> ImageFacts:
    """Measure an RGB picture; `width` and `height` are those of the original."""
    lab_HW3 = lab_from_rgb(_small(picture))
    lightness: FloatArray = lab_HW3[..., 0] / np.float32(100)
    low, high = np.percentile(lightness, [5, 95])
    chroma = np.hypot(lab_HW3[..., 1], lab_HW3[..., 2])
    layout = measure_layout(lab_HW3)
    return ImageFacts(
        width=width, height=height,
        palette=palette_of(lab_HW3.reshape(-1, 3)[::3]),
        brightness=float(lightness.mean()),
        contrast=float(high - low),
        colourfulness=float(chroma.mean() / 100),
        warmth=float(lab_HW3[..., 2].mean() / 100),
        sharpness=_sharpness(lightness),
        layout=layout,
        regions=measure_regions(lab_HW3, layout),
    )


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    scale = min(1.0, WORKING_SIDE / max(picture.size))
    size = (max(8, round(picture.width * scale)), max(8, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX), dtype=np.uint8)


def _sharpness(lightness_HW: FloatArray) -> float:
    """Standard deviation of the 4-neighbour Laplacian over that of the picture (Pech-Pacheco 2000, normalised)."""
    inner = lightness_HW[1:-1, 1:-1]
    laplacian = (
        lightness_HW[:-2, 1:-1] + lightness_HW[2:, 1:-1] + lightness_HW[1:-1, :-2] + lightness_HW[1:-1, 2:] - 4 * inner
    )
    spread = float(inner.std())
    return float(laplacian.std()) / spread if spread > 1e-3 else 0.0
