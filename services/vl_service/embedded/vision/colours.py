"""Pixels → CIELAB → the colour names that people use."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from contracts.describe import Language

FloatArray = NDArray[np.float32]

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourShare:
    """A colour name (English, the key in words/colours.toml) and its share of the picture in 0..1."""

    name: str
    share: float


def lab_from_rgb(rgb_HW3: NDArray[np.uint8]) -> FloatArray:
    """sRGB bytes `[..., 3]` → CIELAB under D65, float32 `[..., 3]`: L in 0..100 (IEC 61966-2-1, CIE 15)."""
    scaled = rgb_HW3.astype(np.float32) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ _RGB_TO_XYZ.T) / _WHITE_D65
    cubed = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lightness = 116 * cubed[..., 1] - 16
    a = 500 * (cubed[..., 0] - cubed[..., 1])
    b = 200 * (cubed[..., 1] - cubed[..., 2])
    return np.stack([lightness, a, b], axis=-1).astype(np.float32)


@cache
def _table() -> tuple[tuple[str, ...], dict[str, str], NDArray[np.intp], FloatArray]:
    data = tomllib.loads((files("vl_service.embedded") / "words" / "colours.toml").read_text("utf-8"))
    names = tuple(data)
    points = [(index, bytes.fromhex(code)) for index, name in enumerate(names) for code in data[name]["rgb"]]
    rgb = np.array([list(code) for _, code in points], dtype=np.uint8)
    return names, {n: data[n]["zh"] for n in names}, np.array([i for i, _ in points]), lab_from_rgb(rgb)


def colour_name(name: str, language: Language) -> str:
    """The colour's name in the language."""
    return _table()[1][name] if language == "zh" else name


def known_colours() -> dict[str, str]:
    """English name → Chinese name of every colour there is a word for."""
    return dict(_table()[1])


def nearest_names(lab: FloatArray) -> NDArray[np.intp]:
    """CIELAB `[..., 3]` → `[...]`, the number of each pixel's colour name in the order of `known_colours`."""
    _, _, owner, points = _table()
    return owner[((lab[..., None, :] - points) ** 2).sum(-1).argmin(-1)]


def palette_of(lab_N3: FloatArray, *, at_most: int = 4, least_share: float = 0.06) -> tuple[ColourShare, ...]:
    """Named colours by share, largest first; small ones are left out, the largest always stays."""
    names = _table()[0]
    counts = np.bincount(nearest_names(lab_N3), minlength=len(names))
    shares = counts / max(1, counts.sum())
    order = np.argsort(-shares, kind="stable")[:at_most]
    kept = [index for rank, index in enumerate(order) if rank == 0 or shares[index] >= least_share]
    return tuple(ColourShare(name=names[index], share=float(shares[index])) for index in kept)
