"""Which part of an image a clip of another shape shows: it is scaled to cover the clip, and what stands over is cut."""

import math
from collections.abc import Iterable
from typing import Final

Size = tuple[int, int]
"""Width and height in pixels."""

NOTICED: Final = 0.03  # what is less at both edges together, nobody misses
_AREA_WEIGHT: Final = 0.15  # so much cut is worth giving up all of the area


def share_cut(image: Size, clip: Size) -> float:
    """The share of the image, from 0 to 1, that lies outside the clip."""
    shape = image[0] * clip[1] / (image[1] * clip[0])
    return 1 - min(shape, 1 / shape)


def whole_size(image: Size, recommended: Iterable[Size], multiple: int, min_side: int, max_pixels: int) -> Size:
    """The legal size that shows the image whole, or nearly: a recommended one where that does, for models know those
    best; else one with the area of the recommended size nearest in shape, in the image's own.
    """
    nearest = min(recommended, key=lambda size: abs(math.log(image[0] * size[1] / (image[1] * size[0]))))
    if share_cut(image, nearest) < NOTICED:
        return nearest
    area = min(nearest[0] * nearest[1], max_pixels)
    smallest = math.ceil(min_side / multiple) * multiple
    candidates = [nearest]
    for width in range(smallest, area // smallest + 1, multiple):
        ideal = width * image[1] / image[0] / multiple
        for height in {math.floor(ideal) * multiple, math.ceil(ideal) * multiple}:
            if height >= smallest and width * height <= area:
                candidates.append((width, height))
    return min(
        candidates, key=lambda size: share_cut(image, size) + _AREA_WEIGHT * (1 - size[0] * size[1] / area)
    )


def cut_in_words(image: Size, clip: Size, whole: Size) -> str | None:
    """What the clip does not show of the image and which size would; `None` where nothing is missed."""
    cut = share_cut(image, clip)
    if cut < NOTICED:
        return None
    wide = image[0] * clip[1] > image[1] * clip[0]
    side, edges = ("width", "left and right") if wide else ("height", "top and bottom")
    said = f"{clip[0]}x{clip[1]} shows the picture without {cut:.0%} of its {side} ({edges})"
    remedy = f": `size` {whole[0]}x{whole[1]} shows all of it."
    return said + (remedy if share_cut(image, whole) < min(cut, NOTICED) else ".")
