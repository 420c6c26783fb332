"""Patches made where the tower computes are those of transformers' own processor."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vl_service.qwen.vision.patches import patches_of

CPU = torch.device("cpu")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("how", [
    {}, {"patch_size": 16, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.3]}, {"do_rescale": False},
    {"do_normalize": False},
])
@pytest.mark.parametrize("sides", [(300, 190), (30, 300), (16, 12)])
def test_they_are_the_processors(sides: tuple[int, int], how: dict[str, object]) -> None:
    """Larger and smaller than its limits, long ones, other constants; and what it leaves out."""
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 40}, **how)  # type: ignore[arg-type]
    expected = processor(images=[noise(*sides)], return_tensors="pt")
    patches, grid = patches_of(noise(*sides), processor, dict(processor.size), CPU)
    torch.testing.assert_close(patches, expected["pixel_values"], atol=1e-6, rtol=0)
    assert grid.tolist() == expected["image_grid_thw"].tolist()
