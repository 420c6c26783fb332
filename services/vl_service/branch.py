"""The tower's late blocks a second time, taught on drawings: what is drawn, and where on the grid."""

import copy
from typing import Any

from torch import Tensor, nn

START = 11
"""The first block of EfficientNet-Lite2 that the branch has of its own; those before it are shared and frozen."""
DRAWN_CHANNELS = 512


def shared(tower: Any, pixels_BCHW: Tensor) -> Tensor:
    """What tower and branch both start from: `[B, 88, 17, 17]` of pictures of 260 pixels."""
    x = tower._swish(tower._bn0(tower._conv_stem(pixels_BCHW)))  # the package has no public name for its parts
    for block in tower._blocks[:START]:
        x = block(x)
    return x


def own_features(tower: Any, shared_BCHW: Tensor) -> Tensor:
    """The rest of the tower: `[B, 1280, 9, 9]`, as `tower.extract_features` gives them."""
    x = shared_BCHW
    for block in tower._blocks[START:]:
        x = block(x)
    return tower._swish(tower._bn1(tower._conv_head(x)))


class Branch(nn.Module):
    """Begins as a copy of the tower's late blocks, with a head of its own.

    It tells `names` drawn things apart; the last one is none at all.
    """

    def __init__(self, tower: Any, names: int) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = copy.deepcopy(tower._blocks[START:])
        self.head = nn.Conv2d(tower._conv_head.in_channels, DRAWN_CHANNELS, 1, bias=False)
        self.norm, self.active = nn.BatchNorm2d(DRAWN_CHANNELS), nn.ReLU6()
        self.names = nn.Linear(DRAWN_CHANNELS, names)
        self.where = nn.Conv2d(DRAWN_CHANNELS, 1, 1)

    def forward(self, shared_BCHW: Tensor, drop: float = 0.0) -> Tensor:
        """Features `[B, 512, 9, 9]`; in training up to a share `drop` of the last blocks is left out."""
        x = shared_BCHW
        for number, block in enumerate(self.blocks):
            x = block(x, drop_connect_rate=drop * number / len(self.blocks))
        return self.active(self.norm(self.head(x)))
