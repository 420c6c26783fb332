"""The tower's later blocks once more, taught on drawings: what is drawn, where on the grid, and how many."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EARLY, LATE = 4, 11
"""The first block of EfficientNet-Lite2 that a branch has of its own; those before it are shared and frozen."""
_COARSE = 15
"""The first block on the coarse grid."""
FINE_GRID = 17
DRAWN_CHANNELS = 512
_MAP_CHANNELS = 48


Begun = Mapping[int, Tensor]
"""What tower and branches start from, by the block that it goes into."""


def shared(tower: Any, pixels_BCHW: Tensor) -> Begun:
    """`[B, 24, 65, 65]` for early branches, `[B, 88, 17, 17]` for late ones, of pictures of 260 pixels."""
    x = tower._swish(tower._bn0(tower._conv_stem(pixels_BCHW)))  # the package has no public name for its parts
    begun: dict[int, Tensor] = {}
    for number, block in enumerate(tower._blocks[:LATE], start=1):
        x = block(x)
        if number in (EARLY, LATE):
            begun[number] = x
    return begun


def own_features(tower: Any, begun: Begun) -> Tensor:
    """The rest of the tower: `[B, 1280, 9, 9]`, as `tower.extract_features` gives them."""
    x = begun[LATE]
    for block in tower._blocks[LATE:]:
        x = block(x)
    return tower._swish(tower._bn1(tower._conv_head(x)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the branch makes of a batch."""

    features_BCHW: Tensor
    """`[B, 512, 9, 9]`."""
    where_BHW: Tensor
    """`[B, 9, 9]`: logits of a cell showing something drawn."""
    covered_BHW: Tensor
    """The same on the fine grid, `[B, 17, 17]`."""
    number_BHW: Tensor
    """`[B, 17, 17]`: how many drawn things have their middle in a cell; the sum is their number."""
    named_BN: Tensor
    """Logits of what is drawn."""


class Branch(nn.Module):
    """Begins as a copy of the tower's blocks from `start` on, with heads of its own.

    It tells `names` drawn things apart; the last one is none at all.
    """

    def __init__(self, tower: Any, names: int, start: int = LATE) -> None:
        super().__init__()
        self.start = start
        self.blocks: nn.ModuleList = copy.deepcopy(tower._blocks[start:])
        self.head = nn.Conv2d(tower._conv_head.in_channels, DRAWN_CHANNELS, 1, bias=False)
        self.norm, self.active = nn.BatchNorm2d(DRAWN_CHANNELS), nn.ReLU6()
        self.names = nn.Linear(DRAWN_CHANNELS, names)
        self.where = nn.Conv2d(DRAWN_CHANNELS, 1, 1)
        fine = tower._blocks[_COARSE]._block_args.input_filters
        self.near, self.far = nn.Conv2d(fine, _MAP_CHANNELS, 1), nn.Conv2d(DRAWN_CHANNELS, _MAP_CHANNELS, 1)
        self.join = nn.Conv2d(_MAP_CHANNELS, _MAP_CHANNELS, 3, padding=1)
        self.map = nn.Conv2d(_MAP_CHANNELS, 2, 1)
        nn.init.zeros_(self.map.weight)

    def forward(self, begun: Begun, drop: float = 0.0) -> Drawn:
        """In training up to a share `drop` of the last blocks is left out."""
        return self.marked(*self.features(begun, drop))

    def features(self, begun: Begun, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """`[B, 120, 17, 17]` half way, and `[B, 512, 9, 9]`."""
        x = fine = begun[self.start]
        for number, block in enumerate(self.blocks):
            fine = x if number == _COARSE - self.start else fine
            x = block(x, drop_connect_rate=drop * number / len(self.blocks))
        return fine, self.active(self.norm(self.head(x)))

    def marked(self, fine_BCHW: Tensor, features_BCHW: Tensor) -> Drawn:
        """The features, and what the heads make of them."""
        near, far = self.near(fine_BCHW), self.far(features_BCHW)
        both = F.silu(near + F.interpolate(far, size=near.shape[2:], mode="nearest"))
        covered, number = self.map(F.silu(self.join(both))).unbind(1)
        return Drawn(features_BCHW=features_BCHW, where_BHW=self.where(features_BCHW)[:, 0], covered_BHW=covered,
                     number_BHW=number, named_BN=self.names(features_BCHW.mean((2, 3))))


def start_of(tower: Any, weights: Iterable[str]) -> int:
    """The block at which a branch begins, by the names of its weights.

    Raises ValueError if no branch begins there.
    """
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    start = len(tower._blocks) - len(blocks)
    if start not in (EARLY, LATE):
        raise ValueError(f"a branch has {len(blocks)} blocks")
    return start


class Branches(nn.ModuleList):
    """Branches taught apart from one another, which answer together: what only one of them believes counts for less.

    Deep ensembles, Lakshminarayanan et al. 2017.
    """

    def forward(self, begun: Begun) -> Drawn:
        """The mean of what they say, of the names that of their probabilities; the features are the first one's."""
        said = [branch(begun) for branch in self]
        named = torch.stack([drawn.named_BN.float().log_softmax(-1) for drawn in said])
        where, covered, number = (
            torch.stack([getattr(drawn, name).float() for drawn in said]).mean(0)
            for name in ("where_BHW", "covered_BHW", "number_BHW"))
        return Drawn(features_BCHW=said[0].features_BCHW, where_BHW=where, covered_BHW=covered, number_BHW=number,
                     named_BN=named.logsumexp(0) - math.log(len(said)))
