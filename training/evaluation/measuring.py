"""Measures one rendered clip against what was asked of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from training.evaluation.judge import flicker, judge, laplacian_kept, sharpness_kept
from training.evaluation.set import Case
from training.evaluation.warping import flicker_ratio, unchanged

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One clip: what was asked, what the judge saw, and how good it looks.

    `psnr_db` and `ssim` compare the first frame with the fitted input; `flicker` is in grey levels of 255 and
    `flicker_ratio` over a plain warp; `laplacian_kept` is of the last frame, in variances, `sharpness_kept` of the last
    three, in standard deviations; `load` is the machine's load average when the clip was done.
    """

    case: Case
    seen: str
    right: bool
    psnr_db: float
    ssim: float
    mean_flow_px: float
    flicker: float
    flicker_ratio: float | None
    sharpness_kept: float
    laplacian_kept: float
    seconds: float
    load: float | None


def measure(
    case: Case, fitted: Frames, frames_THWC: Frames, seconds: float, load: float | None = None,
    encoded: Callable[[Frames], Frames] = unchanged,
) -> Measured:
    """Judge one clip; `fitted` is the input at the clip's size, [H, W, 3]; `encoded` does what the clip's file did."""
    verdict = judge(frames_THWC)
    return Measured(
        case=case, seen=verdict.motion, right=verdict.motion == case.motion,
        psnr_db=_psnr_db(fitted, frames_THWC[0]),
        ssim=float(np.mean(structural_similarity(fitted, frames_THWC[0], channel_axis=-1))),
        mean_flow_px=verdict.mean_flow_px, flicker=flicker(frames_THWC),
        flicker_ratio=flicker_ratio(fitted, frames_THWC, encoded), sharpness_kept=sharpness_kept(frames_THWC),
        laplacian_kept=laplacian_kept(frames_THWC), seconds=seconds, load=load,
    )


def _psnr_db(wanted: Frames, got: Frames) -> float:
    error = float(np.mean((wanted.astype(np.float64) - got) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-4)))  # at most 88 dB: equal pictures, and JSON has no infinity
