"""The pictures that go with a video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video_service.media.mp4 import Previews


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame k is of the grey level 10 k."""
    return np.stack([np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)])


def test_the_thumbnail_is_the_first_frame_and_the_sheet_spans_the_whole_video(tmp_path: Path) -> None:
    frames = grey_frames(21)
    previews = Previews(len(frames))
    for start in (0, 1, 5, 9, 13, 17):  # as the decoder hands them over
        previews.put(frames[start : 1 if start == 0 else start + 4])
    previews.write(tmp_path)
    first = Image.open(tmp_path / "thumbnail.jpg")
    assert (first.format, first.size) == ("JPEG", (64, 48))
    assert np.asarray(first).max() <= 3
    sheet = np.asarray(Image.open(tmp_path / "spritesheet.jpg").convert("L")).astype(int)
    assert sheet.shape == (4 * 48, 4 * 64)
    cells = [sheet[48 * (n // 4) + 24, 64 * (n % 4) + 32] for n in range(16)]
    assert cells == sorted(cells)
    assert (cells[0], cells[-1]) == pytest.approx((0, 200), abs=3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "last_frame.png")), frames[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_frame.png", "spritesheet.jpg", "thumbnail.jpg"]


@pytest.mark.parametrize(("count", "size"), [(1, (64, 48)), (5, (256, 96)), (2, (128, 48))])
def test_a_short_video_has_a_small_sheet(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    previews = Previews(count)
    previews.put(grey_frames(count))
    previews.write(tmp_path)
    assert Image.open(tmp_path / "spritesheet.jpg").size == size


def test_large_frames_are_reduced_on_the_sheet_only(tmp_path: Path) -> None:
    previews = Previews(1)
    previews.put(grey_frames(1, 480, 832))
    previews.write(tmp_path)
    assert Image.open(tmp_path / "thumbnail.jpg").size == (832, 480)
    assert Image.open(tmp_path / "spritesheet.jpg").size == (240, 138)
