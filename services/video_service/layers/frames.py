"""Frames as bytes, made where they are decoded and brought to the host while the next ones decode."""

from collections.abc import Iterable, Iterator

import torch


def to_bytes(frames: torch.Tensor) -> torch.Tensor:
    """uint8 of frames whose numbers run from -1 to 1."""
    return ((frames.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def to_yuv420(frames_THWC: torch.Tensor) -> torch.Tensor:
    """Planar YUV 4:2:0 uint8 [T, H * 3 / 2, W] of uint8 RGB [T, H, W, 3] with even sides.

    BT.709, limited range, as `media.mp4` writes and names it; chroma is the mean of 2x2 pixels.
    An encoder takes it as `av.VideoFrame.from_ndarray(frame, format="yuv420p")`.
    """
    red, green, blue = frames_THWC.float().unbind(-1)
    luma = 16.0 + (46.5594 * red + 156.6288 * green + 15.8118 * blue) / 255.0
    chroma = torch.stack([
        128.0 + (-25.664 * red - 86.336 * green + 112.0 * blue) / 255.0,
        128.0 + (112.0 * red - 101.7303 * green - 10.2697 * blue) / 255.0,
    ], dim=1)
    chroma = torch.nn.functional.avg_pool2d(chroma, 2)
    planes = [luma.flatten(1), chroma.flatten(1)]
    levels = torch.cat(planes, dim=1).round().clamp(0.0, 255.0).to(torch.uint8)
    return levels.reshape(len(frames_THWC), -1, frames_THWC.shape[2])


class ToHost:
    """Copies from the device into pinned memory on a stream of its own, one piece behind what is computed.

    for frames in ToHost()(pieces): each is a CPU tensor of its own, in order; the device computes the next meanwhile.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def __call__(self, pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        waiting: tuple[torch.Tensor, torch.cuda.Event] | None = None
        for piece in pieces:
            sent = self._send(piece)
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = sent
        if waiting is not None:
            yield _arrived(*waiting)

    def _send(self, piece: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        # A copy on the device first: a graph's output is written again by its next launch.
        own = piece.clone()
        host = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            host.copy_(own, non_blocking=True)
            own.record_stream(self._stream)
            done = torch.cuda.Event()
            done.record()
        return host, done


def _arrived(host: torch.Tensor, done: torch.cuda.Event) -> torch.Tensor:
    done.synchronize()
    return host
