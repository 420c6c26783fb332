"""How much a clip flickers beyond what its motion explains: warping error against the measured flow.

After Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018): each frame is compared with its successor
warped back by the optical flow between them, where the flow is not occluded (forward-backward check of Sundaram et al.
2010, with the thresholds of Ruder et al. 2016).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.judge import dense_flow, grey

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]
LEAST_ERROR = 1.0  # grey levels; below it are rounding and resampling, not flicker
LEAST_SHARE = 0.02  # of the frame that must be visible in both frames and in the input for a pair to count


def unchanged(frames_THWC: Frames) -> Frames:
    """The way of clips that were never encoded."""
    return frames_THWC


def flicker_ratio(
    fitted_HWC: Frames, frames_THWC: Frames, encoded: Callable[[Frames], Frames] = unchanged
) -> float | None:
    """Warping error of a clip over that of a plain warp of its input by the same flow; 1 is as steady as can be.

    `fitted_HWC` is the input at the clip's size, RGB uint8 like the frames. Both errors are root mean squares in grey
    levels (0 to 255) over the same pixels: those that the flow does not occlude and that show part of the input. The
    plain warp resamples the input along the flow added up from frame to frame and goes through `encoded`, as the clip
    did; its error is what resampling, the file format and the flow's own mistakes cost. Either error counts as at least
    LEAST_ERROR. None where nothing of the input stays in sight. Raises ValueError for fewer than 2 frames.
    """
    if len(frames_THWC) < 2:
        raise ValueError(f"need at least 2 frames, got {len(frames_THWC)}")
    pictures = grey(frames_THWC)
    forth = [dense_flow(before, after) for before, after in pairwise(pictures)]
    back = [dense_flow(after, before) for before, after in pairwise(pictures)]
    warped, shown = _plain_warp(fitted_HWC, back)
    plain = encoded(warped)
    ours_squared, plain_squared, pixels = 0.0, 0.0, 0
    for t, flow in enumerate(forth):
        visible = _visible(flow, back[t]) & shown[t]
        visible &= _sample(shown[t + 1].astype(np.float32), flow) > 0.99
        count = int(visible.sum())
        if count < LEAST_SHARE * visible.size:
            continue
        ours_squared += _squared_error(frames_THWC[t], frames_THWC[t + 1], flow, visible)
        plain_squared += _squared_error(plain[t], plain[t + 1], flow, visible)
        pixels += count
    if not pixels:
        return None
    ours, least = np.sqrt(ours_squared / pixels), np.sqrt(plain_squared / pixels)
    return float(max(ours, LEAST_ERROR) / max(least, LEAST_ERROR))


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return rows, columns


def _sample(picture: NDArray[np.float32] | Frames, flow_HW2: Floats) -> Floats:
    """`picture` as seen from the flow's frame: at each pixel what lies where the flow leads."""
    rows, columns = _grid(*flow_HW2.shape[:2])
    sampled = cv2.remap(
        picture.astype(np.float32), columns + flow_HW2[..., 0], rows + flow_HW2[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(sampled, dtype=np.float32)


def _inside(flow_HW2: Floats) -> Mask:
    height, width = flow_HW2.shape[:2]
    rows, columns = _grid(height, width)
    x, y = columns + flow_HW2[..., 0], rows + flow_HW2[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _visible(forth_HW2: Floats, back_HW2: Floats) -> Mask:
    """Pixels whose way there and back ends where it began."""
    returned = _sample(back_HW2, forth_HW2)
    gap = ((forth_HW2 + returned) ** 2).sum(-1)
    lengths = (forth_HW2**2).sum(-1) + (returned**2).sum(-1)
    return _inside(forth_HW2) & (gap <= 0.01 * lengths + 0.5)


def _plain_warp(fitted_HWC: Frames, back: Sequence[Floats]) -> tuple[Frames, list[Mask]]:
    """The input carried along the flow, [T, H, W, 3], and where each of its pixels comes from inside the input."""
    to_input = np.zeros((*fitted_HWC.shape[:2], 2), np.float32)
    pictures, shown = [fitted_HWC], [np.ones(fitted_HWC.shape[:2], np.bool_)]
    for flow in back:
        still = _sample(shown[-1].astype(np.float32), flow) > 0.99
        to_input = flow + _sample(to_input, flow)
        pictures.append(np.round(_sample(fitted_HWC, to_input)).astype(np.uint8))
        shown.append(still & _inside(flow) & _inside(to_input))
    return np.stack(pictures), shown


def _squared_error(before: Frames, after: Frames, flow: Floats, visible: Mask) -> float:
    """Sum over the visible pixels of the squared difference, averaged over the colours."""
    difference = _sample(after, flow) - before
    return float((difference**2).mean(-1)[visible].sum())
