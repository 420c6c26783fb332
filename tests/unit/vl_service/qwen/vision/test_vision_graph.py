"""Vision towers as graphs compute what transformers' towers compute, for every picture that fits."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.unit.vl_service.qwen.built_tower import SLOTS
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, tiny_tower
from vl_service.qwen.engines.vision_graph import (
    ImageTooLarge,
    TowerGraph,
    layout_of,
    slots_for,
    slots_needed,
    tower_graph,
)

BAR = 1e-4


@pytest.fixture(scope="module", params=FAMILIES)
def tower(request: pytest.FixtureRequest) -> Any:
    return tiny_tower(request.param)


def grid(rows: int, columns: int) -> torch.Tensor:
    return torch.tensor([[1, rows, columns]])


def pixels_for(tower: Any, shape: torch.Tensor) -> torch.Tensor:
    size = tower.patch_embed.proj.weight[0].numel()
    return torch.randn(int(shape.prod()), size, generator=torch.Generator().manual_seed(3))


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    assert found.shape == true.shape
    return float((found.double() - true.double()).norm() / true.double().norm())


def check(tower: Any, shape: torch.Tensor, found: Sequence[torch.Tensor]) -> None:
    """Compare a graph's outputs with transformers' for the same picture, in its order."""
    true = tower(pixels_for(tower, shape), shape)
    layout, unit = layout_of(tower, shape, SLOTS), tower.spatial_merge_size**2
    expected = [true.pooler_output, *(getattr(true, "deepstack_features", None) or ())]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert relative(layout.read(one, unit), other) < BAR


@torch.inference_mode()
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (6, 4), (8, 8), (10, 10), (2, 30)])
def test_any_picture_that_fits_gives_transformers_features(tower: Any, size: tuple[int, int]) -> None:
    """Windows that are cut by an edge, pictures of one window, and slots that stay empty included."""
    shape = grid(*size)
    layout = layout_of(tower, shape, SLOTS)
    outputs = TowerGraph(tower)(*layout.fill(pixels_for(tower, shape)).values())
    check(tower, shape, outputs)


def test_a_picture_that_does_not_fit_is_refused_with_what_it_needs(tower: Any) -> None:
    assert slots_needed(tower, grid(8, 8)) <= SLOTS
    with pytest.raises(ImageTooLarge, match=r"144 patches needs \d+ slots, not 64"):
        layout_of(tower, grid(12, 12), 64)


def test_the_smallest_graph_for_a_picture_is_the_smallest_that_it_fits(tower: Any) -> None:
    for shape in (grid(2, 2), grid(6, 10), grid(12, 12)):
        slots = slots_for(tower, shape)
        layout_of(tower, shape, slots)
        tower_graph(tower, slots)
        with pytest.raises(ImageTooLarge):
            layout_of(tower, shape, slots_needed(tower, shape) - 1)


def test_several_pictures_at_once_are_refused(tower: Any) -> None:
    with pytest.raises(ValueError, match="one picture"):
        layout_of(tower, torch.tensor([[1, 4, 4], [1, 4, 4]]), SLOTS)


def test_slots_that_would_cut_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        tower_graph(tiny_tower("qwen2_5_vl"), 72)
