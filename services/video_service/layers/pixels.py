"""Pictures to tensors, tensors to frames, and what latents look like without decoding them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

_RIDGE = 0.01  # of latents' variance, which is about 1
_PATCHES = (8, 32)
"""Sides of a colour card's patches, in pixels."""


def picture_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB picture to float32 [3, H, W] in [-1, 1]."""
    pixels_HWC = torch.from_numpy(np.array(picture, dtype=np.float32) / 255.0)
    return pixels_HWC.permute(2, 0, 1) * 2.0 - 1.0


def to_levels(frames_BCTHW: torch.Tensor) -> torch.Tensor:
    """Floats in about -1 to 1 to uint8 [B, T, H, W, 3]."""
    levels = ((frames_BCTHW.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 4, 1)


def colour_card(height: int, width: int) -> torch.Tensor:
    """Patches of all colours, large ones under small ones: [1, 3, 1, H, W] in [-1, 1], always the same."""
    random, card = torch.Generator().manual_seed(0), torch.zeros(1, 3, height, width)
    for patch in _PATCHES:
        cells = torch.rand(1, 3, -(-height // patch), -(-width // patch), generator=random) * 2.0 - 1.0
        card += F.interpolate(cells, (height, width), mode="bilinear") * 0.7
    return card.clamp(-1.0, 1.0)[:, :, None]


def fitted_colours(latents_1CHW: torch.Tensor, picture_13HW: torch.Tensor) -> torch.Tensor:
    """The straight line from a VAE's latents to colours that fits a picture best: weights [C + 1, 3], the last row its
    offset. That such a line is good enough to watch a render by:
    https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
    """
    small_13HW = F.adaptive_avg_pool2d(picture_13HW.float(), (latents_1CHW.shape[2], latents_1CHW.shape[3]))
    latents_NC = latents_1CHW.float().flatten(2)[0].T.cpu()
    known = torch.cat([latents_NC, torch.ones(len(latents_NC), 1)], dim=1)
    # A channel that hardly moves on the card must not be made much of: it moves on photographs (a ridge).
    little = torch.full((known.shape[1],), _RIDGE * len(known))
    little[-1] = 0.0
    wanted = known.T @ small_13HW.flatten(2)[0].T.cpu()
    return torch.linalg.solve(known.T @ known + torch.diag(little), wanted).to(latents_1CHW.device)


class Colours:
    """The weights of `fitted_colours` for one VAE: made once."""

    def __init__(self, known: torch.Tensor | None = None) -> None:
        self._known = known

    def get(self, learn: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self._known is None:
            self._known = learn()
        return self._known


def coloured(latents_BCHW: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] by the weights of `fitted_colours`."""
    rgb = latents_BCHW.movedim(1, -1) @ colours[:-1] + colours[-1]
    return ((rgb.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
