"""A row of the table is held where the bar is met, missed where it is not, and not run where nothing was measured."""

from typing import Any

import pytest

from training.evaluation.bars import Row, table, video_rows
from training.evaluation.measuring import Measured
from training.evaluation.set import Case

SETUP = {"model": "truth", "engine": "service", "cores": 2, "size": "256x256", "frames": 33}


def clip(**changes: Any) -> Measured:
    """A clip that keeps every bar."""
    case = {key: changes.pop(key) for key in ("asked", "motion", "picture") if key in changes}
    good: dict[str, Any] = {
        "seen": "pan_left", "right": True, "psnr_db": 30.0, "ssim": 0.9, "mean_flow_px": 0.1, "flicker": 1.0,
        "flicker_ratio": 1.2, "sharpness_kept": 0.9, "laplacian_kept": 0.8, "seconds": 9.0, "load": 1.0,
    }
    asked = {"picture": "cat", "motion": "hold", "prompt": "hold", "seed": 0} | case
    return Measured(case=Case(**asked), **good | changes)


def good_clips() -> list[Measured]:
    return [clip(asked=asked) for asked in ("single", "paraphrase", "chinese", "many_steps")]


def row(rows: list[Row], words: str) -> Row:
    [found] = [row for row in rows if words in row.measure]
    return found


def test_clips_that_keep_every_bar_hold_every_row() -> None:
    rows = video_rows(good_clips(), SETUP)
    assert len(rows) == 10
    assert [row.measure for row in rows if row.held is not True] == []


@pytest.mark.parametrize(("words", "bad"), [
    ("PSNR", {"psnr_db": 20.0}), ("SSIM", {"ssim": 0.5}), ("single motions", {"right": False}),
    ("paraphrases", {"right": False, "asked": "paraphrase"}), ("Chinese", {"right": False, "asked": "chinese"}),
    ("hold still", {"mean_flow_px": 0.9}), ("flicker", {"flicker_ratio": 3.0}), ("sharpness", {"laplacian_kept": 0.1}),
    ("few steps", {"right": False}), ("one clip", {"seconds": 40.0}),
])
def test_a_broken_clip_misses_its_row(words: str, bad: dict[str, Any]) -> None:
    broken = clip(asked=bad.get("asked", "single"), **{key: value for key, value in bad.items() if key != "asked"})
    others = [other for other in good_clips() if other.case.asked == "many_steps"]
    missed = row(video_rows([broken, *others], SETUP), words)
    assert missed.held is False
    assert "**missed**" in "\n".join(table([missed]))


def test_without_clips_no_row_claims_anything() -> None:
    rows = video_rows([], SETUP)
    assert all(row.held is None and row.value is None and row.verdict == "not run" for row in rows)


def test_clips_of_many_steps_count_in_the_comparison_alone() -> None:
    rows = video_rows([*good_clips()[:3], clip(asked="many_steps", psnr_db=1.0, seconds=99.0, mean_flow_px=9.0)], SETUP)
    assert all(row.held for row in rows)


@pytest.mark.parametrize("other", [{"engine": "diffusers"}, {"size": "128x128"}, {"frames": 5}])
def test_seconds_of_another_renderer_or_of_less_than_a_clip_say_nothing(other: dict[str, Any]) -> None:
    assert row(video_rows(good_clips(), SETUP | other), "one clip").held is None
