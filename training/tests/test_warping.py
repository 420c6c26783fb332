"""The flicker ratio is about one on a plain warp of a picture, whatever its motion, and rises with what flickers."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from training.evaluation.evaluate import through_mp4
from training.evaluation.judge import laplacian_kept
from training.evaluation.true_clips import true_clip
from training.evaluation.warping import flicker_ratio

Frames = NDArray[np.uint8]
MOTIONS = ("pan_left", "zoom_in", "zoom_out", "rotate_cw", "hold")


@cache
def clip_of(motion: str, photograph: str = "coffee") -> Frames:
    return true_clip(getattr(skimage.data, photograph)(), motion, "normal", 9, 96, 0.6)


def bytes_of(frames: NDArray[Any]) -> Frames:
    return np.clip(frames, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("motion", "photograph"), [*((motion, "coffee") for motion in MOTIONS), ("pan_left", "chelsea")])
def test_a_clean_warp_is_about_one_and_noise_of_each_frame_is_seen(motion: str, photograph: str) -> None:
    clip = clip_of(motion, photograph)
    noisy = bytes_of(clip + np.random.default_rng(0).normal(0, 8, clip.shape))
    clean, ratio = flicker_ratio(clip[0], clip), flicker_ratio(clip[0], noisy)
    assert clean == pytest.approx(1, abs=0.4)
    assert ratio is not None
    assert ratio > 1.5


def test_what_the_file_costs_is_not_held_against_the_clip() -> None:
    clip = clip_of("pan_left")
    written = through_mp4(clip)
    ratio, fair = flicker_ratio(clip[0], written), flicker_ratio(clip[0], written, through_mp4)
    assert ratio is not None
    assert fair is not None
    assert fair == pytest.approx(1, abs=0.25)
    assert fair < ratio


@pytest.mark.parametrize("motion", ["pan_left", "hold"])
def test_light_that_jumps_from_frame_to_frame_is_flicker(motion: str) -> None:
    clip = clip_of(motion)
    jumping = bytes_of(clip * (1 + 0.08 * (np.arange(len(clip)) % 2))[:, None, None, None])
    ratio = flicker_ratio(clip[0], jumping)
    assert ratio is not None
    assert ratio > 2


def test_what_only_rounding_changes_is_no_flicker() -> None:
    clip = clip_of("hold")
    shimmer = np.random.default_rng(0).integers(0, 2, clip.shape)
    assert flicker_ratio(clip[0], bytes_of(clip.astype(int) + shimmer)) == pytest.approx(1, abs=0.05)


def test_without_a_successor_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        flicker_ratio(clip_of("hold")[0], clip_of("hold")[:1])


def test_contrast_halved_at_the_end_keeps_a_quarter_of_the_laplacian_variance() -> None:
    clip = clip_of("hold").copy()
    assert laplacian_kept(clip) == pytest.approx(1)
    clip[-1] //= 2
    assert laplacian_kept(clip) == pytest.approx(0.25, abs=0.03)
    assert laplacian_kept(clip[:-1]) == pytest.approx(1), "the last frame alone counts"
