"""The MP4 that is written."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.photographs import photograph
from video_service.media.mp4 import Mp4Writer, VideoWriteFailed, WrittenVideo, to_yuv


def moving_square(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    frames = np.full((num_frames, height, width, 3), (40, 120, 200), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[16:48, 4 + 4 * index : 24 + 4 * index] = (220, 60, 30)
    return frames


def write(path: Path, frames: np.ndarray, fps: int = 16) -> WrittenVideo:
    with Mp4Writer(path, width=frames.shape[2], height=frames.shape[1], fps=fps) as writer:
        writer.put(frames[:1])
        for start in range(1, len(frames), 4):
            writer.put(frames[start : start + 4])
        return writer.finish()


def test_what_is_written_is_what_a_browser_plays(tmp_path: Path) -> None:
    """H.264, yuv420p, BT.709 limited range, the asked size, rate and number of frames."""
    written = write(tmp_path / "v.mp4", moving_square(13), fps=12)
    with av.open(str(tmp_path / "v.mp4")) as video:
        stream = video.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 96, 64)
        assert (stream.average_rate, stream.frames) == (12, 13)
        assert video.duration == pytest.approx(13 / 12 * av.time_base, abs=av.time_base / 1000)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert len(list(video.decode(video=0))) == written.num_frames == 13


def test_the_index_comes_first_so_that_playing_starts_at_once(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", moving_square(9))
    data = (tmp_path / "v.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_frames_come_back_nearly_as_they_went_in(tmp_path: Path) -> None:
    """Colours survive matrix, range and compression: at least 32 dB."""
    frames = moving_square(9)
    write(tmp_path / "v.mp4", frames)
    with av.open(str(tmp_path / "v.mp4")) as video:
        back = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    error = ((back.astype(float) - frames) ** 2).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / error)).min() > 32


def test_a_photograph_is_kept_close_to_lossless(tmp_path: Path) -> None:
    """A slow pan over fur and over faint noise: luma within 46 and 41 dB."""
    cat = np.asarray(photograph("chelsea"))
    pan = np.stack([cat[20 + k : 212 + k, 40 + 2 * k : 328 + 2 * k] for k in range(24)])
    noise = np.random.default_rng(0).normal(0, 6, pan.shape)
    for frames, least in ((pan, 46), ((pan + noise).clip(0, 255).astype(np.uint8), 41)):
        write(tmp_path / "v.mp4", frames)
        with av.open(str(tmp_path / "v.mp4")) as video:
            back = [luma(frame) for frame in video.decode(video=0)]
        error = [((luma(to_yuv(a)) - b) ** 2).mean() for a, b in zip(frames, back, strict=True)]
        assert 10 * np.log10(255**2 / np.mean(error)) > least


def luma(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray()[: frame.height].astype(float)


def test_after_the_end_what_was_put_is_encoded_and_nothing_more_is_taken(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "v.mp4", width=96, height=64, fps=16) as writer:
        writer.put(moving_square(4))
        writer.end()
        with pytest.raises(ValueError, match="after the end"):
            writer.put(moving_square(4))
        assert writer.finish().num_frames == 4


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Mp4Writer(tmp_path / "v.mp4", width=96, height=64, fps=16) as writer:
            while not list(tmp_path.iterdir()):
                writer.put(moving_square(4))
            assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "v.mp4", width=96, height=64, fps=16) as writer:
        writer.put(moving_square(4))
        assert not (tmp_path / "v.mp4").exists()
        writer.finish()
        assert (tmp_path / "v.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_an_encoder_error_reaches_the_caller(tmp_path: Path) -> None:
    """Width 95 cannot be yuv420p: the thread's error is raised to whoever writes, and does not hang the queue."""
    frames = moving_square(4, width=95)
    with pytest.raises(VideoWriteFailed, match="could not be encoded"):
        write(tmp_path / "v.mp4", np.concatenate([frames] * 10))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoWriteFailed):
        write(tmp_path / "missing" / "v.mp4", moving_square(4))


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "v.mp4", width=96, height=64, fps=16) as writer, pytest.raises(ValueError, match="uint8"):
        writer.put(moving_square(1, height=32))


_ENCODE = """
import sys
from pathlib import Path

import numpy as np

from tests.support.photographs import photograph
from video_service.media.mp4 import Mp4Writer

y, x = np.mgrid[:96, :208]
scene = np.stack([x * y // 40, (x // 9 * 31 + y // 7 * 17), x + 2 * y], axis=-1).astype(np.uint8)
frames = np.stack([scene[i : i + 64, 3 * i : 3 * i + 112] for i in range(17)])
with Mp4Writer(Path(sys.argv[1]), width=112, height=64, fps=16) as writer:
    writer.put(frames)
    print(writer.finish().sha256)
"""


def test_equal_frames_give_equal_bytes_whatever_memory_held_before(tmp_path: Path) -> None:
    def encoded(filled_with: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", _ENCODE, str(tmp_path / "clip.mp4")], check=True, capture_output=True, text=True,
            env={**os.environ, "MALLOC_PERTURB_": filled_with}, timeout=60,
        ).stdout

    assert encoded("85") == encoded("127")
