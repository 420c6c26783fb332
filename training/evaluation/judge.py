"""Which camera motion do these frames show? Dense optical flow (OpenCV's DIS) and a similarity fit; no model.

A camera term is named as a person filming would: `pan_left` turns the camera left, so the content moves right;
`tilt_up` moves the content down. `rotate_cw` turns the content clockwise as seen on screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

MOTIONS = (
    "zoom_in", "zoom_out", "pan_left", "pan_right", "tilt_up", "tilt_down", "rotate_cw", "rotate_ccw", "hold",
)
NO_CAMERA_MOTION = "other"  # it moves, but no camera motion explains it
PAIRS = 8
GRID_PX = 3
BORDER_SHARE = 0.03  # DIS is unreliable at the rim
HOLD_PATH = 0.02  # way over the whole clip, as a share of the side: 0.16 px a frame at 256 px and 33 frames
FIT_ROUNDS = 6
OUTLIER_PX = 0.7
TEXTURE_NOISE = 8.0  # Sobel units that noise alone reaches: the flow of a dark sky is invented
TEXTURE_CAP = 40.0  # beyond which more contrast does not make a pixel more trustworthy

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a clip does from its first to its last frame.

    `right` and `down` are the content's shift as a share of the frame's side (the square root of its area); `zoom` is
    the natural logarithm of the enlargement; `turn` is in radians, clockwise on screen; `path` is the mean way of a
    textured pixel as a share of the side; `mean_flow_px` is the same in pixels a frame.
    """

    motion: str
    right: float
    down: float
    zoom: float
    turn: float
    path: float
    mean_flow_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Similarity between two frames, in pixels about the frame's centre, and the weighted mean length of the flow."""

    shift_x: float
    shift_y: float
    zoom: float
    turn: float
    flow_px: float


def dense_flow(before: Frames, after: Frames) -> Floats:
    """[H, W, 2] displacement in pixels of each pixel of `before`; both are grey [H, W]."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
    return np.asarray(estimator.calc(before, after, np.zeros(0, np.float32)), dtype=np.float32)


def grey(frames_THWC: Frames) -> list[Frames]:
    """The frames in grey, [H, W] each."""
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.uint8) for frame in frames_THWC]


def _texture(picture: Frames) -> Floats:
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return np.clip(slope - TEXTURE_NOISE, 0, TEXTURE_CAP).astype(np.float32)


def _fit(before: Frames, after: Frames) -> _Pair:
    """Least squares, re-weighted against outliers, over textured pixels whose flow stays in the frame."""
    height, width = before.shape
    margin = max(2, round(BORDER_SHARE * min(height, width)))
    rows, columns = np.mgrid[margin:height - margin:GRID_PX, margin:width - margin:GRID_PX]
    flow = dense_flow(before, after)[rows, columns].reshape(-1, 2).astype(np.float64)
    x, y = columns.ravel() - (width - 1) / 2, rows.ravel() - (height - 1) / 2
    lands_x, lands_y = columns.ravel() + flow[:, 0], rows.ravel() + flow[:, 1]
    inside = (lands_x >= margin) & (lands_x < width - margin) & (lands_y >= margin) & (lands_y < height - margin)
    trust = _texture(before)[rows, columns].ravel().astype(np.float64) * inside + 1e-6
    # u = shift_x + a x - b y, v = shift_y + b x + a y: the matrix [1+a, -b; b, 1+a] turns clockwise for b > 0, y down
    one, zero = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)])
    target = np.concatenate([flow[:, 0], flow[:, 1]])
    weight, solution = np.concatenate([trust, trust]), np.zeros(4)
    for _ in range(FIT_ROUNDS):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, target * root[:, 0], rcond=None)[0]
        miss = (design @ solution - target).reshape(2, -1)
        steady = trust / (1 + (miss**2).sum(0) / OUTLIER_PX**2)
        weight = np.concatenate([steady, steady])
    shift_x, shift_y, a, b = solution
    return _Pair(
        shift_x=float(shift_x), shift_y=float(shift_y), zoom=float(np.log(np.hypot(1 + a, b))),
        turn=float(np.arctan2(b, 1 + a)), flow_px=float(np.average(np.hypot(flow[:, 0], flow[:, 1]), weights=trust)),
    )


def judge(frames_THWC: Frames) -> Verdict:
    """Fit a similarity to the flow of about eight frame pairs, add them up, and name the largest term.

    Takes at least 2 RGB frames [F, H, W, 3], uint8, at least 32 pixels a side; raises ValueError otherwise.
    """
    if frames_THWC.ndim != 4 or len(frames_THWC) < 2 or min(frames_THWC.shape[1:3]) < 32:
        raise ValueError(f"need at least 2 RGB frames of 32 x 32 or more, got shape {frames_THWC.shape}")
    # Wide steps: a slow motion of a tenth of a pixel a frame drowns in the flow's own error.
    moments = np.unique(np.linspace(0, len(frames_THWC) - 1, PAIRS + 1).round().astype(int))
    pictures = grey(frames_THWC[moments])
    pairs = [_fit(before, after) for before, after in pairwise(pictures)]
    height, width = pictures[0].shape
    side = float(np.sqrt(height * width))
    way_px = sum(pair.flow_px for pair in pairs)
    right, down = sum(pair.shift_x for pair in pairs) / side, sum(pair.shift_y for pair in pairs) / side
    zoom, turn = sum(pair.zoom for pair in pairs), sum(pair.turn for pair in pairs)
    return Verdict(
        motion=_name(right, down, zoom, turn, way_px / side, _mean_radius(height, width) / side),
        right=right, down=down, zoom=zoom, turn=turn, path=way_px / side,
        mean_flow_px=way_px / (len(frames_THWC) - 1),
    )


def _mean_radius(height: int, width: int) -> float:
    y, x = np.mgrid[0:height, 0:width]
    return float(np.hypot(x - (width - 1) / 2, y - (height - 1) / 2).mean())


def _name(right: float, down: float, zoom: float, turn: float, path: float, radius: float) -> str:
    """The term that moves an average pixel furthest."""
    if path < HOLD_PATH:
        return "hold"
    ways = {
        "zoom_in": zoom * radius, "zoom_out": -zoom * radius, "rotate_cw": turn * radius, "rotate_ccw": -turn * radius,
        "pan_left": right, "pan_right": -right, "tilt_up": down, "tilt_down": -down,
    }
    motion = max(ways, key=ways.__getitem__)
    return motion if ways[motion] > HOLD_PATH / 2 else NO_CAMERA_MOTION


def flicker(frames_THWC: Frames) -> float:
    """Mean absolute difference (0 to 255) between each frame and its successor warped back by the flow; 0 is steady."""
    pictures = grey(frames_THWC)
    height, width = pictures[0].shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    errors: list[float] = []
    for before, after in pairwise(pictures):
        flow = dense_flow(before, after)
        to_x, to_y = columns + flow[..., 0], rows + flow[..., 1]
        inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
        warped = cv2.remap(after, to_x, to_y, cv2.INTER_LINEAR)
        errors.append(float(np.abs(warped.astype(np.float32) - before)[inside].mean()))
    return float(np.mean(errors))


def sharpness(frames: Sequence[Frames] | Frames) -> float:
    """Mean standard deviation of the Laplacian over some RGB frames; more is sharper."""
    return float(np.mean([cv2.Laplacian(picture, cv2.CV_32F).std() for picture in grey(np.asarray(frames))]))


def sharpness_kept(frames_THWC: Frames, count: int = 3) -> float:
    """Sharpness of the last frames over that of the first; 1 is none lost. A true zoom in loses some too."""
    return sharpness(frames_THWC[-count:]) / max(sharpness(frames_THWC[:count]), 1e-6)


def laplacian_kept(frames_THWC: Frames) -> float:
    """Variance of the last frame's Laplacian over the first one's; 1 is none lost (Pech-Pacheco et al. 2000)."""
    first, last = (cv2.Laplacian(picture, cv2.CV_32F).var() for picture in grey(frames_THWC[[0, -1]]))
    return float(last / max(first, 1e-6))
