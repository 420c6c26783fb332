"""Which sizes a model takes, and which of them shows an image whole.

An image of another shape than the clip is scaled to cover it, and what stands over is cut.
"""

import math
from collections.abc import Iterable
from typing import Final

from contracts.jobs import GenerateOptions
from contracts.models import ModelSpec, VideoModelInfo
from contracts.refusal import ParameterRefused

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


def size_of(options: GenerateOptions, model: VideoModelInfo, image_size: Size | None) -> Size:
    """What is asked for, or the default; raises `ParameterRefused` where the model does not take it."""
    if (options.width is None) != (options.height is None):
        missing = "height" if options.height is None else "width"
        raise ParameterRefused("size_incomplete", missing, "`width` and `height` go together: send both or neither.")
    if options.size is not None:
        if options.width is not None:
            raise ParameterRefused("size_given_twice", "size", "Send either `size` or `width` and `height`.")
        return _checked(parse_size(options.size), model, "size", "size")
    if options.width is not None and options.height is not None:
        return _checked((options.width, options.height), model, "width", "height")
    return default_size(model, image_size)


def default_size(model: VideoModelInfo, image_size: Size | None) -> Size:
    """Where none is asked for: the model's first, or the one that shows the whole image."""
    sizes = [parse_size(size) for size in model.sizes]
    if image_size is None:
        return sizes[0]
    if model.clips:  # nothing else is built
        return min(sizes, key=lambda size: share_cut(image_size, size))
    return whole_size(image_size, sizes, model.size_multiple, model.min_side, model.max_pixels)


def nearest_size(width: int, height: int, model: ModelSpec) -> Size:
    """The size closest to width × height that `model` takes."""
    multiple = model.size_multiple
    smallest = math.ceil(model.min_side / multiple) * multiple
    scale = min(1.0, math.sqrt(model.max_pixels / (width * height)))
    fitted_w, fitted_h = (max(smallest, round(side * scale / multiple) * multiple) for side in (width, height))
    while fitted_w * fitted_h > model.max_pixels and max(fitted_w, fitted_h) > smallest:
        if fitted_w >= fitted_h:
            fitted_w -= multiple
        else:
            fitted_h -= multiple
    return fitted_w, fitted_h


def _checked(size: Size, model: ModelSpec, width_field: str, height_field: str) -> Size:
    """The size where the model takes it; a refusal names the field that was sent."""
    width, height = size
    multiple, near = model.size_multiple, "{}x{}".format(*nearest_size(width, height, model))
    if width % multiple or height % multiple:
        raise ParameterRefused(
            "size_not_multiple", width_field if width % multiple else height_field,
            f"{width}x{height}: {model.id} takes multiples of {multiple}; the nearest size is {near}.",
        )
    if min(width, height) < model.min_side:
        raise ParameterRefused(
            "size_too_small", width_field if width < model.min_side else height_field,
            f"{width}x{height}: {model.id} needs at least {model.min_side} pixels a side; the nearest size is {near}.",
        )
    if width * height > model.max_pixels:
        raise ParameterRefused(
            "size_too_large", width_field,
            f"{width}x{height}: {model.id} renders at most {model.max_pixels} pixels; the nearest size is {near}.",
        )
    return size


def parse_size(size: str) -> Size:
    width, _, height = size.partition("x")
    return int(width), int(height)
