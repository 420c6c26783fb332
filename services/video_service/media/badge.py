"""The words on every frame that say a video was made by AI."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SHARE = 0.05  # of the shorter side, the least height of the words by China's GB 45438-2025
_MARGIN = 0.02
_MISSING = "\uffff"  # of which every font shows its sign for what it lacks


class BadgeUnusable(ValueError):
    """The words cannot be drawn; the message says what to do."""


class Badge:
    """White words on black in the lower right corner."""

    def __init__(self, text: str, font: Path | None = None) -> None:
        """`font`: a TrueType or OpenType file; unset, Pillow's own, which knows Latin letters. Raises `BadgeUnusable`.
        """
        self._text = text
        self._font = font
        known = self._font_of(32)
        lacking = _drawn(_MISSING, known)
        if strange := sorted({sign for sign in text if not sign.isspace() and _drawn(sign, known) == lacking}):
            raise BadgeUnusable(
                f"VIDEO_BADGE: the font lacks {''.join(strange)!r}; name a file that has them in VIDEO_BADGE_FONT.")
        self.patch = lru_cache(maxsize=8)(self._patch)
        """Where it lies in a frame of that height and width, and its uint8 pixels."""

    def on(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Copies of uint8 frames with the words on them; those that have them stay as they are."""
        (top, left), pixels = self.patch(*frames_THWC.shape[1:3])
        marked = frames_THWC.copy()
        marked[:, top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return marked

    def _patch(self, height: int, width: int) -> tuple[tuple[int, int], np.ndarray]:
        margin = max(1, round(_MARGIN * min(height, width)))
        size = max(8, round(1.6 * _SHARE * min(height, width)))  # of a font, whose capitals are lower
        while (box := self._box(size, margin))[0] > width - 2 * margin and size > 1:
            size -= 1
        patch = Image.new("RGB", (min(box[0], width), min(box[1], height)))
        ImageDraw.Draw(patch).text((margin, margin), self._text, "white", self._font_of(size), anchor="lt")
        place = max(0, height - patch.height - margin), max(0, width - patch.width - margin)
        return place, np.asarray(patch)

    def _box(self, size: int, margin: int) -> tuple[int, int]:
        _, _, width, height = self._font_of(size).getbbox(self._text, anchor="lt")
        return round(width) + 2 * margin, round(height) + 2 * margin

    def _font_of(self, size: int) -> ImageFont.FreeTypeFont:
        try:
            found = ImageFont.load_default(size) if self._font is None else ImageFont.truetype(str(self._font), size)
        except OSError as error:
            raise BadgeUnusable(f"VIDEO_BADGE_FONT: {self._font} is no font that can be read: {error}.") from error
        if not isinstance(found, ImageFont.FreeTypeFont):
            raise BadgeUnusable("VIDEO_BADGE: this Pillow was built without FreeType, and can draw no words.")
        return found


def _drawn(sign: str, font: ImageFont.FreeTypeFont) -> bytes:
    canvas = Image.new("L", (64, 64))
    ImageDraw.Draw(canvas).text((8, 8), sign, 255, font)
    return canvas.tobytes()
