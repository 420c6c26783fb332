"""Synthesised clips move as their label says, by the judge that also judges rendered ones."""

import random

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from training.evaluation.judge import MOTIONS, judge
from training.evaluation.pixels import carried_error
from training.video.bank import CANVAS_PX, Bank
from training.video.scenes import AMBIENCE, OBJECT, SceneMaker, draw_motions


@pytest.fixture(scope="module")
def scenes() -> SceneMaker:
    picture = Image.fromarray(skimage.data.coffee()).resize((CANVAS_PX, CANVAS_PX))
    canvas = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    small = torch.nn.functional.avg_pool2d(canvas.float(), 2).to(torch.uint8)
    cutout = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)  # unseen: the camera's motion alone is judged
    return SceneMaker(Bank(canvases=canvas, small=small, cutouts=cutout, names=["nothing"]), "cpu")


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_shows_the_camera_motion_of_its_label(scenes: SceneMaker, motion: str) -> None:
    torch.manual_seed(0)
    video = scenes.make([(motion,)], ["fast"], 9, 128, 128).video
    frames = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert judge(frames).motion == motion


@pytest.mark.parametrize("motion", ["ripple", "flicker", "darken", "brighten", "handheld", "rain", "snow", "fog"])
def test_a_clip_opens_on_the_picture_and_then_changes(scenes: SceneMaker, motion: str) -> None:
    torch.manual_seed(3)
    still = scenes.make([("hold",)], ["fast"], 9, 64, 64).video
    torch.manual_seed(3)
    video = scenes.make([(motion,)], ["fast"], 9, 64, 64).video
    if motion != "handheld":  # its path takes room, so that it is drawn at another scale
        torch.testing.assert_close(video[:, :, 0], still[:, :, 0])
    assert (still[:, :, 0] - still[:, :, -1]).abs().max() < 1e-5
    assert (video[:, :, 0] - video[:, :, -1]).abs().mean() > 0.004


def test_two_motions_add_up(scenes: SceneMaker) -> None:
    torch.manual_seed(0)
    video = scenes.make([("zoom_in", "darken")], ["fast"], 9, 128, 128).video
    frames = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert judge(frames).motion == "zoom_in"
    assert frames[-1].mean() < 0.9 * frames[0].mean()


def test_draws_pairs_only_of_motions_that_go_together() -> None:
    rng = random.Random(0)
    pairs = [drawn for drawn in (draw_motions(rng) for _ in range(4000)) if len(drawn) == 2]
    assert 400 < len(pairs) < 1200
    for first, second in pairs:
        assert "hold" not in (first, second)
        assert first.split("_")[0] != second.split("_")[0]
        assert not {first, second} <= set(OBJECT)
        assert not {first, second} <= set(AMBIENCE)


@pytest.mark.parametrize("motion", ["pan_left", "tilt_down", "zoom_in", "zoom_out", "rotate_cw", "handheld"])
def test_the_cameras_matrices_carry_a_frame_onto_the_next(scenes: SceneMaker, motion: str) -> None:
    torch.manual_seed(0)
    clips = scenes.make([(motion,)], ["fast"], 9, 96, 128)
    resting = torch.eye(3)[:2].expand_as(clips.camera)
    carried, left = (carried_error(clips.video, camera, [2, 6]) for camera in (clips.camera, resting))
    inside = carried < 1
    assert float(carried[inside].mean()) < 0.5 * float(left[inside].mean())
