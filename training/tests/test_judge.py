"""The judge of camera motions is right on clips whose motion is known."""

from functools import cache

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from training.evaluation.judge import MOTIONS, dense_flow, flicker, grey, judge, sharpness_kept
from training.evaluation.true_clips import AMOUNTS, true_clip

Frames = NDArray[np.uint8]
SIZE, FRAMES, DETAIL = 96, 9, 0.6


@cache
def photograph(name: str) -> Frames:
    return np.asarray(getattr(skimage.data, name)())


def spoiled(clip: Frames, seed: int) -> Frames:
    """What a small decoder does to a clip: growing blur, grain and a wobble of brightness."""
    rng = np.random.default_rng(seed)
    wobble = 1 + 0.02 * np.sin(np.arange(len(clip)))[:, None, None, None]
    return np.clip(clip * wobble + rng.normal(0, 2, clip.shape), 0, 255).astype(np.uint8)


def true_clips() -> list[tuple[str, str, Frames]]:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    moving = [motion for motion in MOTIONS if motion != "hold"]
    cases = [(motion, speed) for motion in moving for speed in AMOUNTS] + [("hold", "slow")]
    return [
        (f"{name} {motion} {speed}", motion, true_clip(photograph(name), motion, speed, FRAMES, SIZE, DETAIL))
        for name in names for motion, speed in cases
    ]


def test_it_names_at_least_97_in_100_true_clips_at_every_speed() -> None:
    cases = true_clips()
    wrong = [(case, judge(clip)) for case, motion, clip in cases if judge(clip).motion != motion]
    assert len(cases) == 100
    assert len(wrong) <= 3, wrong


def test_grain_blur_and_wobble_do_not_change_its_mind() -> None:
    cases = [case for case in true_clips() if "normal" in case[0] or "hold" in case[0]]
    verdicts = [(case, judge(spoiled(clip, seed)).motion, motion) for seed, (case, motion, clip) in enumerate(cases)]
    wrong = [verdict for verdict in verdicts if verdict[1] != verdict[2]]
    assert len(wrong) <= 1, wrong


def test_clockwise_is_what_a_person_sees_on_the_screen() -> None:
    """Pillow's rotate turns counter-clockwise for positive angles, by its documentation."""
    whole = Image.fromarray(photograph("chelsea")).resize((225, 150))

    def turning(degrees_a_frame: float) -> Frames:
        frames = [whole.rotate(degrees_a_frame * k, Image.Resampling.BICUBIC) for k in range(9)]
        return np.stack([np.asarray(frame.crop((64, 27, 160, 123))) for frame in frames])

    left, right = judge(turning(1.5)), judge(turning(-1.5))
    assert (left.motion, right.motion) == ("rotate_ccw", "rotate_cw")
    assert right.turn == pytest.approx(np.deg2rad(12), rel=0.1)
    assert left.turn == pytest.approx(-np.deg2rad(12), rel=0.1)


def test_a_camera_panning_left_moves_the_content_right_and_tilting_up_moves_it_down() -> None:
    picture = photograph("astronaut")[::2, ::2]

    def sliding(step_x: int, step_y: int) -> Frames:
        starts = [(60 + step_x * k, 60 + step_y * k) for k in range(9)]
        return np.stack([picture[y:y + SIZE, x:x + SIZE] for x, y in starts])

    pan, tilt = judge(sliding(-4, 0)), judge(sliding(0, -4))
    assert pan.motion == "pan_left"
    assert pan.right == pytest.approx(32 / SIZE, rel=0.1)
    assert tilt.motion == "tilt_up"
    assert tilt.down == pytest.approx(32 / SIZE, rel=0.1)


def test_zoom_is_measured_as_the_logarithm_of_the_enlargement() -> None:
    verdict = judge(true_clip(photograph("coffee"), "zoom_in", "normal", FRAMES, SIZE, DETAIL))
    assert verdict.zoom == pytest.approx(AMOUNTS["normal"]["zoom"], rel=0.1)


def test_one_repeated_frame_holds_with_no_flow_at_all() -> None:
    still = np.repeat(photograph("chelsea")[None, :SIZE, :SIZE], FRAMES, axis=0)
    verdict = judge(still)
    assert verdict.motion == "hold"
    assert verdict.mean_flow_px < 0.01


def test_a_shaking_camera_is_no_camera_move() -> None:
    picture = photograph("coffee")[::2, ::2]
    shake = [0, 3, -3, 3, -3, 3, -3, 3, 0]
    clip = np.stack([picture[50:50 + SIZE, 60 + dx:60 + dx + SIZE] for dx in shake])
    assert judge(clip).motion == "other"


def test_flow_follows_a_shift_of_known_size() -> None:
    picture = grey(photograph("astronaut")[None, ::2, ::2])[0]
    flow = dense_flow(picture[40:200, 40:200], picture[42:202, 37:197])
    assert np.median(flow[20:-20, 20:-20, 0]) == pytest.approx(3, abs=0.1)
    assert np.median(flow[20:-20, 20:-20, 1]) == pytest.approx(-2, abs=0.1)


def test_flicker_counts_changes_of_light_but_not_motion() -> None:
    clip = true_clip(photograph("coffee"), "pan_left", "slow", FRAMES, SIZE, DETAIL)
    flashing = np.where(np.arange(FRAMES)[:, None, None, None] % 2, clip, (clip * 0.85).astype(np.uint8))
    assert flicker(clip) < 2
    assert flicker(flashing) > 4 * flicker(clip)


def test_sharpness_kept_falls_when_the_end_is_blurred() -> None:
    clip = true_clip(photograph("chelsea"), "pan_left", "slow", FRAMES, SIZE, DETAIL)
    small = Image.fromarray(clip[-1]).resize((SIZE // 4, SIZE // 4)).resize((SIZE, SIZE))
    blurred = clip.copy()
    blurred[-3:] = np.asarray(small)
    assert sharpness_kept(clip) == pytest.approx(1, abs=0.2)
    assert sharpness_kept(blurred) < 0.5 * sharpness_kept(clip)


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (9, 16, 64, 3), (64, 64, 3)])
def test_what_it_cannot_judge_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need at least 2 RGB frames"):
        judge(np.zeros(shape, np.uint8))
