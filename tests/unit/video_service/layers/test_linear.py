"""Quantised linear layers against TurboDiffusion's own kernels, and against float32."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from video_service.layers.linear import (
    Fp8Linear,
    Int8BlockLinear,
    Int8Linear,
    dequantise_blocks,
    joined,
    quantise_blocks,
)
from video_service.layers.rows import quantise_rows

DATA = Path(__file__).parents[3] / "data" / "turbodiffusion_layers.safetensors"


@pytest.fixture(scope="module")
def theirs() -> dict[str, torch.Tensor]:
    """x [130, 384] and w [512, 384] through their int8 kernels on an H200."""
    return {key.removeprefix("wide."): x for key, x in load_file(DATA).items() if key.startswith("wide.")}


@pytest.mark.parametrize(("plain", "levels", "scale"), [("w", "int8_weight", "scale"), ("x", "x_int8", "x_scale")])
def test_int8_blocks_are_theirs_to_the_bit(
    theirs: dict[str, torch.Tensor], plain: str, levels: str, scale: str
) -> None:
    found, found_scale = quantise_blocks(theirs[plain])
    assert torch.equal(found, theirs[levels])
    assert torch.equal(found_scale, theirs[scale])
    assert (dequantise_blocks(found, found_scale) - theirs[plain].float()).abs().max() <= found_scale.max()


def test_int8_products_are_theirs_to_the_bit(theirs: dict[str, torch.Tensor]) -> None:
    layer = Int8BlockLinear(theirs["int8_weight"], theirs["scale"], None)
    assert torch.equal(layer(theirs["x"]), theirs["y"])


def test_int8_layers_side_by_side_have_the_numbers_of_what_they_stand_for(theirs: dict[str, torch.Tensor]) -> None:
    """To the bit, in whatever is computed with, and in one memory."""
    levels, scale = theirs["int8_weight"], theirs["scale"]
    stored = dequantise_blocks(levels, scale).bfloat16()
    for dtype in (torch.float32, torch.bfloat16):
        x, bias = torch.randn(3, 384).to(dtype), torch.randn(512).to(dtype)
        layers = [Int8Linear(levels[:128], scale[:1], bias[:128], dtype),
                  Int8Linear(levels[128:], scale[1:], bias[128:], dtype)]
        both = joined(layers, fp8=False)
        assert torch.equal(both(x), F.linear(x, stored.to(dtype), bias))
        for layer in layers:
            assert torch.equal(layer(x), layer.dense()(x))
        assert isinstance(both, Int8Linear)
        assert layers[1].int8_weight.data_ptr() == both.int8_weight[128:].data_ptr()
        assert sum(x.nbytes for x in (both.int8_weight, both.scale)) < 0.501 * stored.nbytes


def test_a_width_that_is_no_multiple_of_128_is_refused() -> None:
    with pytest.raises(ValueError, match="128"):
        quantise_blocks(torch.randn(4, 100))


def test_float8_layers_side_by_side_are_near_their_parts() -> None:
    """3 bits of mantissa on both sides: about 3.7 % of each output's length, whatever the rows' sizes."""
    torch.manual_seed(0)
    layers = [nn.Linear(256, 64), nn.Linear(256, 32)]
    x = torch.randn(20, 256).bfloat16() * torch.logspace(-3, 3, 20)[:, None].bfloat16()
    both = joined(layers, fp8=True)
    assert isinstance(both, Fp8Linear)
    for found, layer in zip(both(*quantise_rows(x)).split([64, 32], dim=1), layers, strict=True):
        expected = layer(x.float())
        assert ((found.float() - expected).norm(dim=1) / expected.norm(dim=1)).max() < 0.06


def test_joined_layers_share_memory_with_their_parts() -> None:
    layers = [nn.Linear(16, 8), nn.Linear(16, 4)]
    x = torch.randn(3, 16)
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    both = joined(layers, fp8=False)
    torch.testing.assert_close(both(x), expected)
    assert layers[1].weight.data_ptr() == both.weight[8:].data_ptr()
