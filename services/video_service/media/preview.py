"""Small pictures of clips that are being denoised, left beside where their videos will be."""

import io
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from contracts.videos import MAX_PREVIEW_BYTES

log = logging.getLogger(__name__)

PREVIEW_SIDE = 160  # the longer side at most, in pixels
_QUALITIES = (82, 60, 40)


class PreviewWriter:
    """Writes each clip's latest picture to its path, on a thread of its own; use as a context manager.

    Whoever puts pictures never waits: those that come while others are being written are left out.
    """

    def __init__(self, paths: Mapping[int, Path]) -> None:
        self.paths = paths
        """Where the pictures of clips go, by the clips' places in the batch; those of others are left out."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preview-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def put(self, frames: Mapping[int, np.ndarray]) -> None:
        """Hand over uint8 [H, W, 3] by the clips' places."""
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(self._write, frames)

    def _write(self, frames: Mapping[int, np.ndarray]) -> None:
        try:
            for place, frame_HWC in frames.items():
                path = self.paths[place]
                part = path.with_suffix(".part")
                part.write_bytes(small_jpeg(frame_HWC))
                part.replace(path)
        except OSError as error:  # a render is not lost for a picture of it
            log.warning("a preview could not be stored: %s", error)


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
