"""Where things are in a picture, measured: horizon, detail, backdrop, sky, water, greenery."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl_service.embedded.vision.colours import FloatArray, palette_of

HORIZON_BINS = 12
HORIZON_STEP_LAB = 9.0  # CIELAB distance across the line; below it people see no edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Positions and shares in 0..1, from the top left; `None` where there is no such thing."""

    horizon: float | None
    """Height of a level line from side to side, 0 at the top."""
    detail_x: float
    detail_y: float
    """Centre of gravity of the edges."""
    detail_area: float
    """Share of the picture, in cells of a 9x9 grid, that holds most of the edges."""
    backdrop: str | None
    """Colour name of an even background all around, such as a studio's."""
    sky: float
    water: float
    greenery: float


def measure_layout(lab_HW3: FloatArray) -> Layout:
    """Measure a picture in CIELAB, at least 8x8 pixels."""
    horizon = find_horizon(lab_HW3)
    x, y, area = _detail(lab_HW3[..., 0])
    backdrop = _backdrop(lab_HW3)
    return Layout(
        horizon=horizon, detail_x=x, detail_y=y, detail_area=area, backdrop=backdrop,
        sky=0.0 if backdrop else _sky_share(lab_HW3),
        water=0.0 if backdrop else float(water_mask(lab_HW3, horizon).mean()),
        greenery=float(greenery_mask(lab_HW3).mean()),
    )


def find_horizon(lab_HW3: FloatArray) -> float | None:
    """Height of the line where the colour changes the same way nearly all across the picture, or `None`."""
    height, width, _ = lab_HW3.shape
    band = max(2, height // 16)
    bins = np.stack([part.mean(1) for part in np.array_split(lab_HW3, min(HORIZON_BINS, width), axis=1)], axis=1)
    rows = np.arange(max(band, height // 8), min(height - band, height * 7 // 8))
    if len(rows) == 0:
        return None
    total = np.concatenate([np.zeros_like(bins[:1]), bins.cumsum(0)])
    step = ((total[rows + band] - total[rows]) - (total[rows] - total[rows - band])) / band  # rows, bins, Lab
    strength = np.linalg.norm(step, axis=-1)
    mean_step = step.mean(1, keepdims=True)
    same_way = (step * mean_step).sum(-1) > 0.6 * strength * np.linalg.norm(mean_step, axis=-1)
    agreeing = ((strength > HORIZON_STEP_LAB) & same_way).mean(1)
    score = np.median(strength, axis=1) * agreeing
    best = int(score.argmax())
    if agreeing[best] < 0.8 or not _quiet_on_one_side(bins, int(rows[best]), band):
        return None
    return float(rows[best] / height)


def _quiet_on_one_side(bins: FloatArray, row: int, band: int) -> bool:
    # a horizon borders on something even from side to side (sky, sea, wall); a row of bricks does not
    return min(bins[row - band:row].std(1).mean(), bins[row:row + band].std(1).mean()) < 10


def _detail(lightness_HW: FloatArray) -> tuple[float, float, float]:
    vertical, horizontal = np.gradient(lightness_HW)
    energy = np.hypot(vertical, horizontal)
    energy = np.maximum(energy - np.percentile(energy, 50), 0)  # grain everywhere is not a place
    cells = np.array([
        [cell.mean() for cell in np.array_split(row, min(9, row.shape[1]), axis=1)]
        for row in np.array_split(energy, min(9, energy.shape[0]), axis=0)
    ])
    total = float(cells.sum())
    if total < 1e-6:
        return 0.5, 0.5, 1.0
    ys, xs = (np.arange(size) + 0.5 for size in cells.shape)
    x = float((cells.sum(0) * xs).sum() / total / cells.shape[1])
    y = float((cells.sum(1) * ys).sum() / total / cells.shape[0])
    return x, y, float((cells > 0.5 * np.percentile(cells, 95)).mean())


def _backdrop(lab_HW3: FloatArray) -> str | None:
    height, width, _ = lab_HW3.shape
    rim = max(1, min(height, width) // 24)
    border = np.concatenate([
        lab_HW3[:rim].reshape(-1, 3), lab_HW3[-rim:].reshape(-1, 3),
        lab_HW3[:, :rim].reshape(-1, 3), lab_HW3[:, -rim:].reshape(-1, 3),
    ])
    middle = np.median(border, axis=0)
    near = np.linalg.norm(border - middle, axis=1) < 6
    if near.mean() < 0.93:
        return None
    return palette_of(border[near])[0].name


def _sky_share(lab_HW3: FloatArray) -> float:
    share = float(sky_mask(lab_HW3).mean())
    return share if share >= 0.06 else 0.0


def sky_mask(lab_HW3: FloatArray) -> NDArray[np.bool_]:
    """What runs down from the top edge and is even and blue, or even and nearly white: `[H, W]`."""
    lightness, a, b = np.moveaxis(lab_HW3, -1, 0)
    chroma = np.hypot(a, b)
    vertical, horizontal = np.gradient(lightness)
    even = np.hypot(vertical, horizontal) < 3.5
    blue = ((b < -5) & (lightness > 30) | (b < -10) & (lightness > 8)) & (a < 15)  # by day, or deep blue at dusk
    pale = (lightness > 78) & (chroma < 12)
    if pale[-max(1, len(pale) // 20):].mean() > 0.5:
        pale = np.zeros_like(pale)  # paper or a studio: it is as white below as above
    from_top: NDArray[np.bool_] = np.logical_and.accumulate((blue | pale) & even, axis=0)
    if from_top[: max(1, len(from_top) // 20)].mean() < 0.35:
        return np.zeros_like(from_top)
    return from_top


def water_mask(lab_HW3: FloatArray, horizon: float | None) -> NDArray[np.bool_]:
    """Blue or teal ground in the lower part whose texture runs level, as ripples seen from the side do: `[H, W]`."""
    found = np.zeros(lab_HW3.shape[:2], dtype=np.bool_)
    top = int(lab_HW3.shape[0] * (horizon if horizon is not None else 0.5))
    lower = lab_HW3[top:]
    if len(lower) < 4:
        return found
    lightness, a, b = np.moveaxis(lower, -1, 0)
    wet = (b < -4) & (a < 10) & (lightness > 8) & (lightness < 88)
    if wet.mean() < 0.3:
        return found
    vertical, horizontal = (np.abs(part) for part in np.gradient(lightness))
    if float(vertical[wet].mean()) > 1.25 * float(horizontal[wet].mean()):
        found[top:] = wet
    return found


def greenery_mask(lab_HW3: FloatArray) -> NDArray[np.bool_]:
    """What is green as plants are: `[H, W]`."""
    lightness, a, b = np.moveaxis(lab_HW3, -1, 0)
    return (a < -6) & (b > 6) & (lightness > 8) & (lightness < 92)
