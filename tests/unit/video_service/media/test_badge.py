"""The words on every frame that say a video was made by AI."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from contracts.videos import VideoRequest
from video_service.media.badge import Badge, BadgeUnusable
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

WORDS = "AI generated"


@pytest.mark.parametrize(("width", "height"), [(64, 64), (256, 256), (832, 480), (480, 832), (1280, 720)])
def test_the_words_stand_in_the_corner_large_enough_and_nothing_else_is_changed(width: int, height: int) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    badge = Badge(WORDS)
    marked = badge.on(frames)
    changed = np.argwhere((marked != frames).any(axis=(0, 3)))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert (top > height // 2, bottom < height, right < width) == (True, True, True)
    corner = marked[0, top : bottom + 1, left : right + 1].astype(int)
    rows = np.flatnonzero((corner > 128).any(axis=(1, 2)))
    if width > 64:  # there the words would not fit otherwise
        assert rows[-1] - rows[0] + 1 >= 0.05 * min(width, height)
    assert corner.max() > 200, "white words"
    assert np.median(corner) == 0, "on black"
    assert np.array_equal(badge.on(marked), marked), "once more changes nothing"


def test_every_frame_of_the_file_has_it_and_the_frame_to_go_on_from_has_not(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    badge = Badge(WORDS)
    (top, left), pixels = badge.patch(64, 64)
    corner = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]

    def differs(frame_HWC: np.ndarray) -> float:
        return float(np.abs(frame_HWC[corner].astype(float) - pixels).mean())

    seen = {}
    for name, model in (("with", replace(tiny_model, badge=badge)), ("without", tiny_model)):
        (tmp_path / name).mkdir()
        generate(model, request_64, tmp_path / name / "video.mp4", silent)
        with av.open(str(tmp_path / name / "video.mp4")) as video:
            seen[name] = [differs(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    assert len(seen["with"]) == request_64.num_frames
    assert max(seen["with"]) < 12 < 40 < min(seen["without"])
    first, second = (np.asarray(Image.open(tmp_path / name / "last_frame.png")) for name in ("with", "without"))
    assert np.array_equal(first, second)
    assert differs(np.asarray(Image.open(tmp_path / "with" / "thumbnail.jpg"))) < 12


@pytest.mark.parametrize(("words", "font", "said"), [
    ("AI生成", None, "the font lacks '成生'; name a file that has them in VIDEO_BADGE_FONT"),
    (WORDS, Path("/no/such.ttf"), "/no/such.ttf is no font that can be read"),
])
def test_words_that_cannot_be_drawn_are_refused_before_anything_is_loaded(
    words: str, font: Path | None, said: str, tiny_folder: Path
) -> None:
    with pytest.raises(BadgeUnusable, match=said):
        Badge(words, font)
    settings = VideoSettings(model=str(tiny_folder), device="cpu", badge=words, badge_font=font)
    with pytest.raises(ModelUnavailable, match=said):
        load_model(find_model(settings), settings)
