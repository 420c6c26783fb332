"""Weights in eight bits come back as they were, but for half a step of 127 to the largest in their row."""

import torch
from safetensors.torch import load, save

from vl_service.embedded.model.eight_bits import LEAST_NUMBERS, packed, unpacked


def some_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(40, 64, generator=generator)
    matrix[3] *= 500  # a row that is much louder than the others takes nothing from them
    matrix[4] = 0
    return {"matrix": matrix, "kernel": torch.randn(64, 1, 5, 5, generator=generator), "bias": torch.randn(40),
            "small": torch.randn(4, 4), "steps": torch.tensor(7)}


def test_a_number_moves_by_half_a_step_of_its_own_row_at_most() -> None:
    weights = some_weights()
    back = unpacked(load(save(packed(weights))))
    assert back.keys() == weights.keys()
    for name in ("matrix", "kernel"):
        rows, found = weights[name].flatten(1), back[name].flatten(1)
        assert back[name].shape == weights[name].shape
        assert bool(((rows - found).abs().amax(1) <= rows.abs().amax(1) / 254 + 1e-7).all())
    assert torch.equal(back["matrix"][4], torch.zeros(64))


def test_what_is_small_is_kept_in_half_precision_and_whole_numbers_as_they_are() -> None:
    weights = some_weights()
    assert weights["small"].numel() < LEAST_NUMBERS
    back = unpacked(packed(weights))
    for name in ("bias", "small"):
        torch.testing.assert_close(back[name], weights[name].half().float(), rtol=0, atol=0)
    assert torch.equal(back["steps"], weights["steps"])


def test_matrices_take_a_quarter_of_the_room() -> None:
    matrix = torch.randn(256, 256)
    size = sum(value.numel() * value.element_size() for value in packed({"matrix": matrix}).values())
    assert size < 0.26 * matrix.numel() * 4
