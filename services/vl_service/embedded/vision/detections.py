"""What the branches for drawings say by themselves: what is drawn, its kind, how many there are, and the colour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vl_service.embedded.vision.colours import known_colours, lab_from_rgb, nearest_names
from vl_service.embedded.vision.features import DRAWN, Views, drawn_names, is_photograph

MOST = 4  # things that are counted
SIDE = 136  # pixels that colours are counted in: 8 x 8 a cell of the fine grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One of those that the branches tell apart; words are English and plain."""

    name: str
    """Empty if only its kind is ever said."""
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Of what is drawn; words are English and plain."""

    name: str
    """The likeliest; empty if that is of a thing that is not named."""
    kind: str
    probability: float
    """Of the kind: of all names of that kind together."""
    count: int
    colour: str


def detect(views: Views, square: Image.Image, things: Sequence[Thing]) -> Detections | None:
    """Of one picture, the square itself first among its views; None where nothing seems drawn, or it is a photograph.

    `things` are those that the branches tell apart, in their order.
    """
    if is_photograph(views) or float(views.covered_BHW[0].max()) <= DRAWN:
        return None
    named_N = drawn_names(views.named_B2N)
    of_kind: dict[str, float] = {}
    for thing, probability in zip(things, named_N.tolist(), strict=True):
        of_kind[thing.kind] = of_kind.get(thing.kind, 0.0) + probability
    kind = max(of_kind, key=lambda name: of_kind[name])
    count = min(MOST, max(1, round(float(views.number_B.mean()))))
    name = things[int(named_N.argmax())].name
    colour = colour_under(square, views.covered_BHW[0])
    return Detections(name=name, kind=kind, probability=of_kind[kind], count=count, colour=colour)


def colour_under(square: Image.Image, covered_HW: Tensor) -> str:
    """The commonest colour name where something drawn covers the picture, more probably than not."""
    covered = F.interpolate(covered_HW[None, None].float(), size=(SIDE, SIDE), mode="bilinear")[0, 0]
    names_HW = nearest_names(lab_from_rgb(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX))))
    names = torch.from_numpy(names_HW)[covered > min(DRAWN, 0.8 * float(covered.max()))]
    return list(known_colours())[int(names.bincount().argmax())]
