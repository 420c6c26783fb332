"""A picture → what the decoder reads: the tower's and the branch's features twice (whole, then closer), a thumbnail,
facts.

All of it is computed from one square of 320 pixels, in training and in serving alike; the closer look undoes its
squeeze.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vl_service.embedded.vision.branch import Branches, own_features, shared
from vl_service.embedded.vision.colours import known_colours, lab_from_rgb, nearest_names
from vl_service.embedded.vision.facts import ImageFacts, measure_facts
from vl_service.embedded.vision.kinds import SURE

SQUARE = 320
TOWER_SIDE = 260
THUMBNAIL = 144
GRID = 9
CHANNELS = 1280
DRAWN = 0.5  # probability from which on a cell shows something drawn
NOTHING = 0.5  # probability above which nothing is drawn
CLOSEST, CLOSEST_DRAWN = 0.35, 0.28  # least side of the closer look
MEASURED_SIDE = 128  # pixels; measuring more of the square changes hardly anything and costs four times as much
NAME_NUMBERS = (6, 3)  # of both looks, of each
SLOTS = 34  # fact tokens
LEVELS = 32  # values that one fact can take; the last one means none
_NONE = LEVELS - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Tower features of a batch of pictures."""

    grid_BPC: Tensor
    """`[B, 81, 1280]` of the whole picture, rows from the top."""
    crop_BC: Tensor
    """`[B, 1280]`, the mean over the closer look."""
    whole_BK: Tensor
    """`[B, 1000]` logits of the whole picture."""
    close_BK: Tensor
    """`[B, 1000]` logits of the closer look."""
    boxes_B3: Tensor
    """Centre x, y and side of the closer look in 0..1; the side is the mean of width and height."""
    drawn_B2C: Tensor
    """`[B, 2, 512]`: the first branch's mean over the whole picture and over the closer look."""
    named_B2N: Tensor
    """Log-probabilities of the drawn things that the branches tell apart, of both looks."""
    where_BP: Tensor
    """`[B, 81]`: how probable it is that a cell of the whole picture shows something drawn."""
    covered_BHW: Tensor
    """The same on the finer grid, `[B, 17, 17]`."""
    number_B: Tensor
    """How many drawn things the branch counts in the whole picture, no whole number."""


def to_square(picture: Image.Image) -> Image.Image:
    """Any RGB picture, squeezed into the square that everything is computed from."""
    return picture.resize((SQUARE, SQUARE), Image.Resampling.BICUBIC, reducing_gap=3.0)


def square_tensor(square: Image.Image) -> Tensor:
    """uint8 `[3, 320, 320]`."""
    return torch.from_numpy(np.array(square, dtype=np.uint8)).permute(2, 0, 1)


@torch.no_grad()
def look(tower: Any, branches: Branches, squares_B3HW: Tensor, aspects_B: Tensor) -> Views:
    """Look at uint8 squares `[B, 3, 320, 320]`: once at the whole, once closer.

    Closer is at the clearest of what is drawn, or where nothing seems drawn, where the tower's features are strongest,
    and in its own proportions: `aspects_B` are width over height of the pictures before they were squeezed.
    `tower` is the package's EfficientNet, which has no types.
    """
    weight = tower._fc.weight  # the package names its classifier so; it has no public name
    pixels = (squares_B3HW.float() - 127) / 128
    whole = F.interpolate(pixels, size=(TOWER_SIDE, TOWER_SIDE), mode="bilinear", antialias=True)
    begun = shared(tower, whole.to(weight.dtype))
    grid, drawn = own_features(tower, begun), branches(begun)
    where = drawn.where_BHW.float().sigmoid()
    boxes = closer(grid, where, aspects_B.to(where))
    begun = shared(tower, cut(pixels, boxes).to(weight.dtype))
    crop = own_features(tower, begun).mean((2, 3))
    both = (drawn, branches(begun))
    return Views(
        grid_BPC=grid.flatten(2).transpose(1, 2),
        crop_BC=crop,
        boxes_B3=torch.cat([boxes[:, :2], boxes[:, 2:].prod(1, keepdim=True).sqrt()], dim=1),
        whole_BK=tower._fc(grid.mean((2, 3))),
        close_BK=tower._fc(crop),
        drawn_B2C=torch.stack([seen.features_BCHW.mean((2, 3)) for seen in both], dim=1),
        named_B2N=torch.stack([seen.named_BN for seen in both], dim=1),
        where_BP=where.flatten(1),
        covered_BHW=drawn.covered_BHW.float().sigmoid(),
        number_B=drawn.number_BHW.float().sum((1, 2)),
    )


def closer(grid_BCHW: Tensor, where_BHW: Tensor, aspects_B: Tensor) -> Tensor:
    """Where to look closer, `[B, 4]`: around one drawn thing, else around the strongest features.

    Centre x and y, width and height in 0..1 of the square, square in the picture; it may be higher or wider than that.
    """
    heat = grid_BCHW.float().norm(dim=1).flatten(1)
    low, high = heat.amin(1, keepdim=True), heat.amax(1, keepdim=True)
    heat = ((heat - low) / (high - low + 1e-6) - 0.45).clamp(min=0).view_as(where_BHW)
    seen = where_BHW.amax((1, 2)) > DRAWN
    drawn = _box(_clearest(where_BHW), CLOSEST_DRAWN, aspects_B)
    return torch.where(seen[:, None], drawn, _box(heat, CLOSEST, aspects_B))


def _clearest(where_BHW: Tensor) -> Tensor:
    """The likeliest cell and all that hang together with it, half as likely at least; the rest is zero."""
    most = where_BHW.amax((1, 2), keepdim=True)
    likely = (where_BHW > most / 2).float()
    part = (where_BHW == most).float()
    for _ in range(2 * GRID):
        part = F.max_pool2d(part[:, None], 3, 1, 1)[:, 0] * likely
    return where_BHW * part


def _box(heat_BHW: Tensor, closest: float, aspects_B: Tensor) -> Tensor:
    """The square of the picture that holds the heat (features' heat: an AUC of 0.88 on cut-outs)."""
    heat = heat_BHW / heat_BHW.sum((1, 2), keepdim=True).clamp(min=1e-6)
    centres = (torch.arange(GRID, device=heat.device) + 0.5) / GRID
    across, down = heat.sum(1), heat.sum(2)
    x, y = (across * centres).sum(1), (down * centres).sum(1)
    wider = aspects_B.sqrt()  # than the square, of the same area
    spread_x = (across * (centres - x[:, None]) ** 2).sum(1).sqrt() * wider
    spread_y = (down * (centres - y[:, None]) ** 2).sum(1).sqrt() / wider
    side = (torch.maximum(spread_x, spread_y) * 3.6 + 0.12).clamp(min=closest)
    side = torch.minimum(side, 0.95 * torch.maximum(wider, 1 / wider))
    sizes = [side / wider, side * wider]
    inside = [torch.minimum(torch.maximum(middle, half), 1 - half)
              for middle, half in zip((x, y), (size.clamp(max=1) / 2 for size in sizes), strict=True)]
    return torch.stack([*inside, *sizes], dim=1)


def cut(pixels_B3HW: Tensor, boxes_B4: Tensor) -> Tensor:
    """The boxes; beyond the picture its border goes on."""
    x, y, width, height = boxes_B4.unbind(1)
    zero = torch.zeros_like(x)
    matrix = torch.stack([torch.stack([width, zero, 2 * x - 1], 1), torch.stack([zero, height, 2 * y - 1], 1)], 1)
    places = F.affine_grid(matrix, [len(x), 3, TOWER_SIDE, TOWER_SIDE], align_corners=False)
    return F.grid_sample(pixels_B3HW, places, mode="bilinear", padding_mode="border", align_corners=False)


def thumbnails(squares_B3HW: Tensor) -> Tensor:
    """uint8 `[B, 3, 144, 144]`."""
    small = F.interpolate(squares_B3HW.float(), size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def measure(square: Image.Image, *, width: int, height: int) -> tuple[ImageFacts, list[int]]:
    """Measured facts, and the same as `SLOTS` whole numbers under `LEVELS` (the last three, of the box, are zero)."""
    small = square.resize((MEASURED_SIDE, MEASURED_SIDE), Image.Resampling.BOX)
    facts = measure_facts(small, width=width, height=height)
    return facts, _slots(facts, small)


def _slots(facts: ImageFacts, small: Image.Image) -> list[int]:
    order = {name: number for number, name in enumerate(known_colours())}
    palette = [(order[colour.name], colour.share) for colour in facts.palette]
    palette += [(_NONE, 0.0)] * (4 - len(palette))
    layout, ratio = facts.layout, facts.width / facts.height
    shape = 0 if ratio > 1.15 else 1 if ratio < 0.87 else 2
    slots = [name for name, _ in palette] + [_level(share, 0.1) for _, share in palette]
    slots += _cells(small)
    slots += [
        _NONE if layout.backdrop is None else order[layout.backdrop],
        _level(facts.brightness, 0.03),
        _level(facts.contrast, 0.04),
        _level(facts.colourfulness, 0.015),
        _level(facts.warmth + 0.3, 0.02),
        _level(facts.sharpness, 0.02),
        _level(layout.sky, 0.04),
        _level(layout.water, 0.04),
        _level(layout.greenery, 0.05),
        _NONE if layout.horizon is None else _level(layout.horizon, 0.05),
        _level(layout.detail_x, 0.05),
        _level(layout.detail_y, 0.05),
        _level(layout.detail_area, 0.05),
        shape,
    ]
    return [*slots, 0, 0, 0]


def _cells(small: Image.Image) -> list[int]:
    """The commonest colour name in each cell of a 3x3 grid."""
    names_HW = nearest_names(lab_from_rgb(np.asarray(small.resize((60, 60), Image.Resampling.BOX))))
    cells = names_HW.reshape(3, 20, 3, 20).transpose(0, 2, 1, 3).reshape(9, -1)
    return [int(np.bincount(cell).argmax()) for cell in cells]


def _level(value: float, step: float) -> int:
    return int(min(max(value / step + 1e-6, 0), LEVELS - 2))


def box_levels(boxes_B3: Tensor) -> Tensor:
    """The last three slots, `[B, 3]` whole numbers."""
    return (boxes_B3 / 0.05).long().clamp(0, LEVELS - 2)


def class_tokens(whole_BK: Tensor, close_BK: Tensor, numbers: tuple[int, int] = (8, 4)) -> tuple[Tensor, Tensor]:
    """Logits → the classes to name: class numbers and levels of probability `[B, 16]` (8 of both looks, 4 of each)."""
    whole, close = whole_BK.float().softmax(-1), close_BK.float().softmax(-1)
    of_both, of_each = numbers
    looks = (((whole + close) / 2, of_both), (whole, of_each), (close, of_each))
    parts = [probabilities.topk(number, dim=-1) for probabilities, number in looks]
    values = torch.cat([part.values for part in parts], dim=-1)
    return torch.cat([part.indices for part in parts], dim=-1), (values.sqrt() * LEVELS).long().clamp(0, LEVELS - 1)


def name_tokens(named_B2N: Tensor) -> tuple[Tensor, Tensor]:
    """The branch's logits → the drawn things to name and levels of probability `[B, 12]`."""
    return class_tokens(named_B2N[:, 0], named_B2N[:, 1], NAME_NUMBERS)


def drawn_names(named_B2N: Tensor) -> Tensor:
    """How probable each thing is in all views and looks, if one is drawn; all zero where more probably nothing is."""
    mean_N = named_B2N.float().softmax(-1).mean((0, 1))
    none = float(mean_N[-1])
    return mean_N[:-1] / (1 - none) if none <= NOTHING else torch.zeros_like(mean_N[:-1])


def clarity(named_B2N: Tensor) -> float:
    """How sure the branches are of the one thing that is drawn; 0 where nothing seems drawn."""
    return float(drawn_names(named_B2N).max())


def tower_probabilities(views: Views) -> Tensor:
    """Of the tower's classes `[1000]`, the mean over all views and looks."""
    return ((views.whole_BK.float().softmax(-1) + views.close_BK.float().softmax(-1)) / 2).mean(0)


def is_photograph(views: Views) -> bool:
    """Whether nothing seems drawn, or the tower knows the thing, and more surely than the branch."""
    drawn = clarity(views.named_B2N)
    return not drawn or float(tower_probabilities(views).max()) > max(SURE, drawn)
