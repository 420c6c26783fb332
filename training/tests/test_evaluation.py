"""The evaluation asks every motion in both languages and reports what the judge saw."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from training.evaluation.evaluate import read_clip
from training.evaluation.judge import MOTIONS
from training.evaluation.measuring import measure
from training.evaluation.report import SHEET_FRAMES, contact_sheet, markdown, summarise
from training.evaluation.set import PHOTOGRAPHS, WORDINGS, Case, load_photographs, make_cases
from training.evaluation.true_clips import true_clip
from video_service.media.mp4 import Mp4Writer

CLIP = true_clip(skimage.data.coffee(), "pan_left", "normal", 9, 96, 0.6)


def test_over_all_photographs_every_wording_of_every_motion_is_asked_in_two_languages() -> None:
    cases = make_cases(list(PHOTOGRAPHS), list(MOTIONS), 1, 0)
    assert len(cases) == len({case.name for case in cases}) == 8 * 9
    for motion in MOTIONS:
        prompts = [case.prompt for case in cases if case.motion == motion]
        assert set(prompts) == set(WORDINGS[motion])
        assert any(prompt.isascii() for prompt in prompts)
        assert any(not prompt.isascii() for prompt in prompts)


def test_every_motion_that_the_judge_can_name_is_asked() -> None:
    assert tuple(WORDINGS) == MOTIONS


def test_no_wording_stands_under_two_motions() -> None:
    wordings = [wording for some in WORDINGS.values() for wording in some]
    assert len(set(wordings)) == len(wordings)


def test_an_unknown_motion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="choose from zoom_in"):
        make_cases(["chelsea"], ["zoom"], 1, 0)


def test_the_photographs_are_real_colour_pictures() -> None:
    for name, picture in load_photographs(None, None, None).items():
        pixels = np.asarray(picture)
        assert min(pixels.shape[:2]) >= 300, name
        assert np.ptp(pixels.astype(int), axis=-1).mean() > 2, name


def test_the_report_counts_a_motion_as_right_only_when_it_is_the_one_asked() -> None:
    asked = [Case(picture="coffee", motion=motion, prompt=motion, seed=0) for motion in ("pan_left", "pan_right")]
    summary = summarise([measure(case, CLIP[0], CLIP, 1.0) for case in asked], {"model": "truth"})
    assert summary["overall"]["motion_accuracy"] == 0.5
    assert list(summary["by_motion"]) == ["pan_right", "pan_left"], "the worst motion comes first"
    assert [(wrong["motion"], wrong["seen"]) for wrong in summary["wrong"]] == [("pan_right", "pan_left")]
    assert "**50.0 %** of 2 clips" in markdown(summary)


def test_the_first_frame_is_compared_with_the_input() -> None:
    grey_level = 10
    lighter = np.clip(CLIP[0].astype(int) + grey_level, 0, 255).astype(np.uint8)
    case = Case(picture="coffee", motion="pan_left", prompt="pan left", seed=0)
    result = measure(case, lighter, CLIP, 1.0)
    assert result.psnr_db == pytest.approx(20 * np.log10(255 / grey_level), abs=0.5)
    assert measure(case, CLIP[0] // 2, CLIP, 1.0).ssim < result.ssim < 1


def test_a_sheet_has_a_row_a_clip_with_the_input_before_the_frames() -> None:
    red = np.full_like(CLIP[0], 0)
    red[..., 0] = 255
    one, two = contact_sheet([("a", red, CLIP)]), contact_sheet([("a", red, CLIP), ("b", red, CLIP)])
    assert two.size == (one.width, 2 * one.height)
    tile = one.width // (SHEET_FRAMES + 1)
    assert one.getpixel((tile // 2, one.height // 2)) == (255, 0, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".npz"])
def test_a_rendered_clip_is_read_back_as_its_frames(tmp_path: Path, suffix: str) -> None:
    if suffix == ".npz":
        np.savez_compressed(tmp_path / "clip.npz", frames=CLIP)
    else:
        with Mp4Writer(tmp_path / "clip.mp4", width=96, height=96, fps=16) as writer:
            writer.put(CLIP)
            writer.finish()
    frames = read_clip(tmp_path / "clip")
    assert frames.shape == CLIP.shape
    assert np.abs(frames.astype(int) - CLIP).mean() < 4


def test_a_folder_of_pictures_can_stand_in_for_the_photographs(tmp_path: Path) -> None:
    Image.fromarray(CLIP[0]).save(tmp_path / "cup.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert list(load_photographs(tmp_path, None, None)) == ["cup"]
