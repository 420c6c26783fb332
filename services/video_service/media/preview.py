"""Small pictures of clips that are being denoised, left beside where their videos will be."""

import io
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from contracts.videos import MAX_PREVIEW_BYTES

log = logging.getLogger(__name__)

PREVIEW_SIDE = 160  # the longer side at most, in pixels
PREVIEW_SHARE = 0.01  # of the time that a render takes
_QUALITIES = (82, 60, 40)


Pixels = Callable[[], tuple[Mapping[int, np.ndarray], float]]
"""uint8 [H, W, 3] by the clips' places, waited for where a device still makes them, and the seconds that they took."""


class Allowance:
    """What may be done beside a work whose time it costs: at once the first time, then as seldom as keeps all of it
    within a share of the time since then, where the next time costs no more than the last one did."""

    def __init__(self, share: float = PREVIEW_SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self._share, self._clock = share, clock
        self._began_s: float | None = None
        self._spent_s = self._last_s = 0.0

    def permits(self) -> bool:
        """Whether now; if so, `spend` tells what it cost."""
        if self._began_s is None:
            self._began_s = self._clock()
            return True
        return self._spent_s + self._last_s <= self._share * (self._clock() - self._began_s)

    def spend(self, seconds: float) -> None:
        self._last_s = seconds
        self._spent_s += seconds


class PreviewWriter:
    """Writes clips' latest pictures to their paths, on a thread of its own; use as a context manager.

    Whoever offers pictures never waits: where earlier ones are being written, or cost too much of the render's time
    so far, they are not even made.
    """

    def __init__(self, paths: Mapping[int, Path], allowance: Allowance | None = None) -> None:
        self.paths = paths
        """Where the pictures of clips go, by the clips' places in the batch; those of others are left out."""
        self._allowance = allowance or Allowance()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preview-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def offer(self, make: Callable[[], Pixels | None]) -> None:
        """Have `make` begin the pictures, here and without waiting for a device, or do nothing now."""
        if (self._writing is None or self._writing.done()) and self._allowance.permits():
            pixels = make()
            if pixels is not None:
                self._writing = self._thread.submit(self._write, pixels)

    def _write(self, pixels: Pixels) -> None:
        frames, seconds = pixels()
        start_s = time.thread_time()  # others have the processor meanwhile: their time is not ours
        try:
            for place, frame_HWC in frames.items():
                path = self.paths[place]
                part = path.with_suffix(".part")
                part.write_bytes(small_jpeg(frame_HWC))
                part.replace(path)
        except OSError as error:  # a render is not lost for a picture of it
            log.warning("a preview could not be stored: %s", error)
        finally:
            self._allowance.spend(seconds + time.thread_time() - start_s)


def small_jpeg(frame_HWC: np.ndarray) -> bytes:
    """A JPEG of at most `MAX_PREVIEW_BYTES`, of whatever uint8 pixels."""
    picture = Image.fromarray(frame_HWC)
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX)
    while True:
        for quality in _QUALITIES:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            if file.tell() <= MAX_PREVIEW_BYTES:
                return file.getvalue()
        picture = picture.reduce(2)
