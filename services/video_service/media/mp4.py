"""The files of a video: frames to H.264 in MP4, encoded in a thread while later ones are still being decoded, and
pictures made while they pass by.
"""

import hashlib
import io
import os
import queue
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image

from video_service.media.clip import Clip, join, open_clip
from web.durable import commit, replace_file

_X264_PARAMS = [
    # Three B frames in a row, whatever is seen: looking for fewer took half of the time of the encoder's own thread,
    # which no other shares, and changed neither size nor PSNR of noise, of a zoom and of a photograph.
    "b-adapt=0",
    # Frames are looked at in the writer's thread: one of the encoder's own would hold four more back until the end.
    "sync-lookahead=0",
    # x264's AVX-512 form of the macroblock tree reads beyond a row's end: equal frames gave unequal files.
    *(["asm=AVX2"] if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else []),
]
ENCODER_OPTIONS = {
    # A quarter to a half of the work of `medium` at crf 17, and no less PSNR.
    "preset": "veryfast", "crf": "14", "x264-params": ":".join(_X264_PARAMS),
}
MAX_ENCODER_THREADS = 8  # each holds one more frame back
MAX_WAITING_BYTES = 64 << 20
_POLL_S = 0.1
COLUMNS = 4
MAX_CELLS = 16
CELL_SIDE = 240  # the longer side of a frame on the sheet, in pixels
_QUALITY = 88


class VideoWriteFailed(Exception):
    """The encoder or the disk failed; no file is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenVideo:
    """A finished file."""

    num_frames: int
    num_bytes: int
    sha256: str


class Mp4Writer:
    """Writes one video; use as a context manager, `put` chunks of frames, then `finish`.

    The file appears under its name only in `finish`, whole and flushed to disk. Leaving the block in any other way
    leaves nothing. `end` before `finish` has the last frames encoded while the caller does something else.
    H.264 in yuv420p (what browsers play), BT.709 limited range, index first (faststart).
    """

    def __init__(self, output: Path, width: int, height: int, fps: int, *, after: Clip | None = None) -> None:
        """`after`: a clip of the same `coding` that the file begins with, as it is."""
        self._output = output
        self._after = after
        self._part, self._new = (output.with_name(f".{output.name}.{os.getpid()}{end}") for end in (".part", ".new"))
        self._size = (height, width)
        self._fps = fps
        frame_bytes = height * width * 3 // 2
        self._frames: queue.Queue[av.VideoFrame | None] = queue.Queue(max(1, MAX_WAITING_BYTES // frame_bytes))
        self._ended = False
        self._abandoned = threading.Event()
        self._error: Exception | None = None
        self._num_frames = 0
        self._thread = threading.Thread(target=self._run, name="mp4-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._thread.join()
        self._part.unlink(missing_ok=True)
        self._new.unlink(missing_ok=True)

    def put(self, frames_THWC: np.ndarray) -> None:
        """Hand over uint8 frames.

        They are made YUV here, on the thread that waits for a device, and not on the encoder's. Waits while
        `MAX_WAITING_BYTES` of them are not encoded yet. Raises `VideoWriteFailed`.
        """
        if self._ended:
            raise ValueError("frames after the end")
        if frames_THWC.dtype != np.uint8 or frames_THWC.shape[1:] != (*self._size, 3):
            raise ValueError(f"expected uint8 [T, {self._size[0]}, {self._size[1]}, 3], got {frames_THWC.shape}")
        for frame_HWC in frames_THWC:
            self._hand_over(to_yuv(frame_HWC))

    def end(self) -> None:
        """No frame comes any more. Does not wait until all are encoded. Raises `VideoWriteFailed`."""
        if not self._ended:
            self._ended = True
            self._hand_over(None)

    def finish(self) -> WrittenVideo:
        """Encode what is left, flush to disk and give the file its name. Raises `VideoWriteFailed`."""
        self.end()
        self._thread.join()
        self._raise_error()
        try:
            self._put_behind()
            with self._part.open("rb+") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                num_bytes = stream.seek(0, os.SEEK_END)
                commit(stream, self._output)
        except (OSError, FFmpegError) as error:
            raise VideoWriteFailed(f"the video could not be stored: {error}") from error
        return WrittenVideo(num_frames=self._num_frames, num_bytes=num_bytes, sha256=digest)

    def _put_behind(self) -> None:
        if self._after is not None:
            self._part.replace(self._new)
            join(self._after, self._new, self._part)
            self._num_frames += self._after.num_frames

    def _hand_over(self, item: av.VideoFrame | None) -> None:
        while True:
            self._raise_error()
            try:
                return self._frames.put(item, timeout=_POLL_S)
            except queue.Full:
                continue

    def _raise_error(self) -> None:
        if self._error is not None:
            raise VideoWriteFailed(f"the video could not be encoded: {self._error}") from self._error

    def _run(self) -> None:
        try:
            self._encode()
        except Exception as error:  # handed to the rendering thread, which raises it
            self._error = error

    def _encode(self) -> None:
        with av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = _stream_in(container, self._size, self._fps)
            time_base = Fraction(1, self._fps)  # the muxer changes the stream's own
            while (yuv := self._next()) is not None:
                yuv.pts, yuv.time_base = self._num_frames, time_base
                container.mux(stream.encode(yuv))
                self._num_frames += 1
            if not self._abandoned.is_set():
                container.mux(stream.encode(None))

    def _next(self) -> av.VideoFrame | None:
        while not self._abandoned.is_set():
            try:
                return self._frames.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None


def coding_of(width: int, height: int, fps: int) -> bytes:
    """The `Clip.coding` of what an `Mp4Writer` of this size and rate writes; it does not depend on the frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = _stream_in(container, (height, width), fps)
        container.mux(stream.encode(to_yuv(np.zeros((height, width, 3), np.uint8))))
        container.mux(stream.encode(None))
    return open_clip(file.getvalue()).coding


def _stream_in(container: Any, size: tuple[int, int], fps: int) -> Any:
    """The encoder; `size` is height and width."""
    stream = container.add_stream("libx264", rate=fps, options=ENCODER_OPTIONS)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, fps)
    context = stream.codec_context
    # Several frames at once: slices of one frame keep few cores busy.
    context.thread_type = "FRAME"
    context.thread_count = min(MAX_ENCODER_THREADS, os.cpu_count() or 1)
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    return stream


def to_yuv(frame_HWC: np.ndarray) -> av.VideoFrame:
    """uint8 RGB as the file keeps it: yuv420p, BT.709, limited range."""
    rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame_HWC), format="rgb24")
    return rgb.reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )


class Previews:
    """Collects frames of one video for `thumbnail.jpg` (the first), `spritesheet.jpg` (some) and `last_frame.png`."""

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        cells = min(MAX_CELLS, num_frames)
        self._wanted = {round(index * (num_frames - 1) / max(1, cells - 1)) for index in range(cells)}
        self._seen = 0
        self._first: Image.Image | None = None
        self._last: Image.Image | None = None
        self._cells: list[Image.Image] = []

    def put(self, frames_THWC: np.ndarray, unmarked_THWC: np.ndarray | None = None) -> None:
        """Look at the next uint8 frames; keeps reduced copies of few of them. `unmarked`: the same without words on
        them, from which a later render goes on."""
        clean_THWC = frames_THWC if unmarked_THWC is None else unmarked_THWC
        for index, (frame_HWC, clean_HWC) in enumerate(zip(frames_THWC, clean_THWC, strict=True), start=self._seen):
            if index not in self._wanted:
                continue
            cell = Image.fromarray(frame_HWC)
            if index == 0:
                self._first = cell.copy()
            if index == self._num_frames - 1:
                self._last = Image.fromarray(clean_HWC).copy()
            cell.thumbnail((CELL_SIDE, CELL_SIDE), Image.Resampling.LANCZOS)
            self._cells.append(cell)
        self._seen += len(frames_THWC)

    def write(self, folder: Path) -> None:
        """Write the files, each whole or absent; raises `OSError`."""
        if self._first is None:
            return
        _store(self._first, folder / "thumbnail.jpg", "JPEG", quality=_QUALITY)
        _store(self._sheet(), folder / "spritesheet.jpg", "JPEG", quality=_QUALITY)
        if self._last is not None:  # a later render goes on from it
            _store(self._last, folder / "last_frame.png", "PNG", compress_level=1)

    def _sheet(self) -> Image.Image:
        """The cells row by row, left to right, in the order of time."""
        width, height = self._cells[0].size
        rows = -(-len(self._cells) // COLUMNS)
        sheet = Image.new("RGB", (width * min(COLUMNS, len(self._cells)), height * rows))
        for place, cell in enumerate(self._cells):
            sheet.paste(cell, (place % COLUMNS * width, place // COLUMNS * height))
        return sheet


def _store(image: Image.Image, path: Path, kind: str, **options: int) -> None:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    replace_file(path, encoded.getbuffer())
