"""A render that goes on from a clip: one file, the clip as it was encoded, and no frame twice."""

from pathlib import Path

import av
import numpy as np
import pytest

from contracts.videos import VideoRequest
from tests.unit.video_service.media.test_mp4 import moving_square, write
from video_service.media import mp4
from video_service.media.clip import ClipUnreadable, open_clip
from video_service.media.mp4 import Mp4Writer
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent


def decoded(path: Path) -> tuple[list[int], np.ndarray]:
    """When each frame is shown, counted in frames, and all of them as they are in the file."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
        rate = float(video.streams.video[0].average_rate or 0)
        assert video.streams.video[0].frames == len(frames)
        return [round((frame.time or 0.0) * rate) for frame in frames], np.stack(
            [frame.to_ndarray() for frame in frames])


@pytest.mark.parametrize("fps", [8, 16, 24, 30])
@pytest.mark.parametrize(("first", "second"), [(13, 9), (1, 1), (1, 33), (81, 4)])
def test_both_parts_are_in_the_file_as_they_were_encoded(tmp_path: Path, fps: int, first: int, second: int) -> None:
    frames = moving_square(first + second, width=512)
    write(tmp_path / "first.mp4", frames[:first], fps)
    write(tmp_path / "second.mp4", frames[first:], fps)
    before = open_clip((tmp_path / "first.mp4").read_bytes())
    with Mp4Writer(tmp_path / "v.mp4", width=512, height=64, fps=fps, after=before) as writer:
        writer.put(frames[first:])
        assert writer.finish().num_frames == first + second
    shown_at, whole = decoded(tmp_path / "v.mp4")
    assert shown_at == list(range(first + second))
    assert np.array_equal(whole[:first], decoded(tmp_path / "first.mp4")[1])
    assert np.array_equal(whole[first:], decoded(tmp_path / "second.mp4")[1])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("size", "fps"), [((64, 64), 16), ((832, 480), 16), ((1280, 704), 24)])
def test_what_a_writer_writes_can_be_told_before(tmp_path: Path, size: tuple[int, int], fps: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, size[1], size[0], 3), dtype=np.uint8)
    write(tmp_path / "v.mp4", noise, fps)
    assert open_clip((tmp_path / "v.mp4").read_bytes()).coding == mp4.coding_of(*size, fps)


def extended(model: Deployed, request: VideoRequest, folder: Path, rounds: int) -> list[int]:
    """Render, then go on from the last frame so often; the frames after each."""
    counted, path = [], folder / "v.mp4"
    for _ in range(rounds + 1):
        counted.append(generate(model, request, path, silent).num_frames)
        request = request.model_copy(update={
            "image": (folder / "last_frame.png").read_bytes(), "extends": path.read_bytes()})
    return counted


def test_a_render_goes_on_from_a_clip_again_and_again(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    assert extended(tiny_model, request_64, tmp_path, 2) == [9, 17, 25]
    assert decoded(tmp_path / "v.mp4")[0] == list(range(25))


def test_the_new_part_is_what_the_same_picture_gives_alone(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    generate(tiny_model, request_64, tmp_path / "first.mp4", silent)
    following = request_64.model_copy(update={"image": (tmp_path / "last_frame.png").read_bytes(), "seed": 3})
    generate(tiny_model, following, tmp_path / "alone.mp4", silent)
    extends = following.model_copy(update={"extends": (tmp_path / "first.mp4").read_bytes()})
    result = generate(tiny_model, extends, tmp_path / "whole.mp4", silent)
    whole, first, alone = (decoded(tmp_path / f"{name}.mp4")[1] for name in ("whole", "first", "alone"))
    assert result.warnings == []
    assert np.array_equal(whole[:9], first)
    error = ((whole[9:].astype(float) - alone[1:]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 38, "the same frames, but for where the encoder began"


def test_a_clip_of_another_encoder_is_encoded_anew_and_that_is_said(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setitem(mp4.ENCODER_OPTIONS, "x264-params", "ref=1:bframes=0")
        generate(tiny_model, request_64, tmp_path / "first.mp4", silent)
    asked = request_64.model_copy(update={
        "image": (tmp_path / "last_frame.png").read_bytes(), "extends": (tmp_path / "first.mp4").read_bytes()})
    result = generate(tiny_model, asked, tmp_path / "whole.mp4", silent)
    assert "encoded otherwise" in " ".join(result.warnings)
    shown_at, whole = decoded(tmp_path / "whole.mp4")
    assert shown_at == list(range(17))
    error = ((whole[:9].astype(float) - decoded(tmp_path / "first.mp4")[1]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 38


@pytest.mark.parametrize(("clip", "words"), [
    (b"no video", "no MP4"), (moving_square(5, height=64, width=64), "at 12 frames a second"),
    (moving_square(5), "96x64 pixels"),
])
def test_what_cannot_be_continued_is_refused_before_any_work(
    tiny_model: Deployed, request_64: VideoRequest, picture_png: bytes, tmp_path: Path, clip: bytes | np.ndarray,
    words: str,
) -> None:
    if not isinstance(clip, bytes):
        write(tmp_path / "clip.mp4", clip, fps=12)
        clip = (tmp_path / "clip.mp4").read_bytes()
    asked = request_64.model_copy(update={"image": picture_png, "extends": clip})
    with pytest.raises(ClipUnreadable, match=words):
        generate(tiny_model, asked, tmp_path / "v.mp4", silent)
    assert not (tmp_path / "v.mp4").exists()
