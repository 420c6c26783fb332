"""Pictures to tensors, and tensors to frames."""

import numpy as np
import torch
from PIL import Image


def picture_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB picture to float32 [3, H, W] in [-1, 1]."""
    pixels_HWC = torch.from_numpy(np.array(picture, dtype=np.float32) / 255.0)
    return pixels_HWC.permute(2, 0, 1) * 2.0 - 1.0


def to_levels(frames_BCTHW: torch.Tensor) -> torch.Tensor:
    """Floats in about -1 to 1 to uint8 [B, T, H, W, 3]."""
    levels = ((frames_BCTHW.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 4, 1)
