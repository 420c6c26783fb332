"""Colours of parts of a picture: of its sides and corners, and of what looks like sky, water or greenery."""

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray

from vl_service.embedded.vision.colours import ColourShare, FloatArray, palette_of
from vl_service.embedded.vision.layout import Layout, greenery_mask, sky_mask, water_mask

LEAST_SHARE = 0.06  # of the picture; what looks like sky, water or greenery and is smaller is not spoken of
PIXELS = 500  # of a region; more of them change no name of a main colour
_FIRST, _MIDDLE, _LAST = (0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0)
_ALL = (0.0, 1.0)
_BOXES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "upper": (_FIRST, _ALL), "lower": (_LAST, _ALL), "left": (_ALL, _FIRST), "right": (_ALL, _LAST),
    "upper left": (_FIRST, _FIRST), "upper right": (_FIRST, _LAST), "lower left": (_LAST, _FIRST),
    "lower right": (_LAST, _LAST), "middle": (_MIDDLE, _MIDDLE),
}


def measure_regions(lab_HW3: FloatArray, layout: Layout) -> dict[str, tuple[ColourShare, ...]]:
    """The main colours of each region, largest first, by their share of the region; what is not there is left out."""
    height, width, _ = lab_HW3.shape
    found: dict[str, tuple[ColourShare, ...]] = {}
    for name, ((top, bottom), (left, right)) in _BOXES.items():
        box = lab_HW3[int(top * height):ceil(bottom * height), int(left * width):ceil(right * width)]
        found[name] = _palette(box.reshape(-1, 3))
    masks: tuple[tuple[str, float, Callable[[], NDArray[np.bool_]]], ...] = (
        ("edges", 1.0, lambda: _edges(height, width)), ("sky", layout.sky, lambda: sky_mask(lab_HW3)),
        ("water", layout.water, lambda: water_mask(lab_HW3, layout.horizon)),
        ("greenery", layout.greenery, lambda: greenery_mask(lab_HW3)),
    )
    return found | {name: _palette(lab_HW3[mask()]) for name, share, mask in masks if share >= LEAST_SHARE}


def _palette(lab_N3: FloatArray) -> tuple[ColourShare, ...]:
    return palette_of(lab_N3[::max(1, len(lab_N3) // PIXELS)], least_share=0.15)


def _edges(height: int, width: int) -> NDArray[np.bool_]:
    mask = np.ones((height, width), dtype=np.bool_)
    mask[ceil(height / 8):height * 7 // 8, ceil(width / 8):width * 7 // 8] = False
    return mask
