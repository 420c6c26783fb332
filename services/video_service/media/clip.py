"""A clip that was rendered before: its frames, and a new part put behind it without encoding it again."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from contracts.refusal import Refusal


class ClipUnreadable(Refusal):
    """The bytes are no clip that a render can go on from; the message says why."""

    status, code, title = 422, "unreadable_clip", "The clip cannot be continued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """An MP4 with H.264 in it."""

    data: bytes
    size: tuple[int, int]
    """Width and height in pixels."""
    fps: Fraction
    num_frames: int
    coding: bytes
    """The decoder's configuration (avcC): frames of equal ones may follow each other in a file."""

    def require(self, width: int, height: int, fps: int) -> None:
        """Raise `ClipUnreadable` where its size or rate are others."""
        if (*self.size, self.fps) != (width, height, fps):
            raise ClipUnreadable(
                f"It has {self.size[0]}x{self.size[1]} pixels at {self.fps} frames a second, and what is to follow has "
                f"{width}x{height} at {fps}.")

    def frames(self) -> Iterator[np.ndarray]:
        """In order, each uint8 RGB [H, W, 3]. Raises `ClipUnreadable`."""
        try:
            with av.open(io.BytesIO(self.data), "r") as video:
                for frame in video.decode(video=0):
                    yield frame.to_ndarray(
                        format="rgb24", src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.MPEG,
                        dst_color_range=ColorRange.JPEG)
        except FFmpegError as error:
            raise ClipUnreadable(f"It is damaged: {error}") from error


def open_clip(data: bytes) -> Clip:
    """Read what the file says of itself. Raises `ClipUnreadable`."""
    try:
        with av.open(io.BytesIO(data)) as video:
            stream = video.streams.video[0]
            context = stream.codec_context
            if context.name != "h264" or stream.average_rate is None or context.extradata is None:
                raise ClipUnreadable(f"Its video is {context.name}, not H.264 of a known rate.")
            return Clip(data=data, size=(context.width, context.height), fps=stream.average_rate,
                        num_frames=stream.frames, coding=bytes(context.extradata))
    except (FFmpegError, IndexError) as error:
        raise ClipUnreadable(f"It is no MP4 with a video in it: {error}") from error


def join(first: Clip, second: Path, output: Path) -> None:
    """Write the frames of both, as they are encoded, into one MP4; their codings must be equal. Raises `FFmpegError`.
    """
    with (
        av.open(io.BytesIO(first.data)) as before, av.open(str(second)) as after,
        av.open(str(output), "w", format="mp4", options={"movflags": "+faststart"}) as whole,
    ):
        parts = before.streams.video[0], after.streams.video[0]
        stream = whole.add_stream_from_template(parts[0])
        packets = [*_packets(parts[0], 0), *_packets(parts[1], first.num_frames)]
        # A part of few frames begins to be decoded later than a long one: the times of decoding are set anew.
        delay = max(index - shown for index, (shown, _) in enumerate(packets))
        tick = stream.time_base = parts[0].time_base or 1 / first.fps
        for index, (shown, packet) in enumerate(packets):
            packet.stream, packet.time_base = stream, tick
            packet.pts, packet.dts = (int(at / first.fps / tick) for at in (shown, index - delay))
            whole.mux(packet)


def _packets(stream: Any, begin: int) -> Iterator[tuple[int, Any]]:
    """Encoded frames in the order of decoding, each with the frame that it is, of which the first is `begin`."""
    for packet in stream.container.demux(stream):
        if packet.dts is not None:  # else it is the mark of the end
            yield begin + round(packet.pts * stream.time_base * stream.average_rate), packet
