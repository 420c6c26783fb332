"""Pictures of a video, made while its frames pass by: its first frame, a sheet of frames, and its last, exactly."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from web.durable import replace_file

COLUMNS = 4
MAX_CELLS = 16
CELL_SIDE = 240  # the longer side of a frame on the sheet, in pixels
_QUALITY = 88


class Previews:
    """Collects frames of one video and writes `thumbnail.jpg`, `spritesheet.jpg` and `last_frame.png`."""

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        cells = min(MAX_CELLS, num_frames)
        self._wanted = {round(index * (num_frames - 1) / max(1, cells - 1)) for index in range(cells)}
        self._seen = 0
        self._first: Image.Image | None = None
        self._last: Image.Image | None = None
        self._cells: list[Image.Image] = []

    def put(self, frames_THWC: np.ndarray) -> None:
        """Look at the next uint8 frames; keeps reduced copies of few of them."""
        for index, frame_HWC in enumerate(frames_THWC, start=self._seen):
            if index not in self._wanted:
                continue
            cell = Image.fromarray(frame_HWC)
            if index == 0:
                self._first = cell.copy()
            if index == self._num_frames - 1:
                self._last = cell.copy()
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
