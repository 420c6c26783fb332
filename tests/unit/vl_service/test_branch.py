"""The branch for drawings, and the closer look that it leads."""

import pytest
import torch

from vl_service.branch import FINE_GRID, START, Branch, Branches, own_features, shared
from vl_service.glance import CLOSEST, CLOSEST_DRAWN, GRID, clarity, closer
from vl_service.tower import ImageNetTower


@pytest.fixture(scope="module")
def tower() -> ImageNetTower:
    return ImageNetTower()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 260, 260, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_tower_looked_at_in_two_parts_gives_its_own_features(tower: ImageNetTower, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        whole = tower.model.extract_features(pixels)
        assert torch.equal(own_features(tower.model, shared(tower.model, pixels)), whole)


def test_a_new_branch_has_the_late_blocks_of_the_tower_and_shares_no_weight_with_it(tower: ImageNetTower) -> None:
    branch = Branch(tower.model, 3)
    late = [value for block in tower.model._blocks[START:] for value in block.parameters()]
    for ours, theirs in zip(branch.blocks.parameters(), late, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_a_branch_sees_the_same_grid_as_the_tower(tower: ImageNetTower, pixels: torch.Tensor) -> None:
    branch = Branch(tower.model, 3).eval()
    with torch.inference_mode():
        drawn = branch(shared(tower.model, pixels))
        assert drawn.features_BCHW.shape == (2, 512, GRID, GRID)
        assert drawn.where_BHW.shape == (2, GRID, GRID)
        assert drawn.covered_BHW.shape == drawn.number_BHW.shape == (2, FINE_GRID, FINE_GRID)
        assert drawn.named_BN.shape == (2, 3)


def test_branches_answer_with_the_mean_of_what_each_believes_and_one_alone_as_it_is(
    tower: ImageNetTower, pixels: torch.Tensor
) -> None:
    torch.manual_seed(5)
    several = Branches(Branch(tower.model, 3) for _ in range(3)).eval()
    with torch.inference_mode():
        begun = shared(tower.model, pixels)
        apart, together, alone = [branch(begun) for branch in several], several(begun), Branches([several[1]])(begun)
    believed = torch.stack([drawn.named_BN.softmax(-1) for drawn in apart]).mean(0)
    torch.testing.assert_close(together.named_BN.exp(), believed)
    torch.testing.assert_close(alone.named_BN.exp(), apart[1].named_BN.softmax(-1))
    for name in ("where_BHW", "covered_BHW", "number_BHW"):
        torch.testing.assert_close(getattr(together, name), torch.stack([getattr(one, name) for one in apart]).mean(0))
    assert torch.equal(together.features_BCHW, apart[0].features_BCHW)


def drawn(*cells: tuple[int, int, float]) -> torch.Tensor:
    """`[1, 9, 9]`: (row, column, probability) of 3 x 3 cells around each."""
    where = torch.full((1, GRID, GRID), 0.01)
    for row, column, probability in cells:
        where[0, row - 1:row + 2, column - 1:column + 2] = probability
    return where


FEATURES_LOW_LEFT = torch.ones(1, 8, GRID, GRID)
FEATURES_LOW_LEFT[0, :, 6:8, 1:3] = 9.0


def test_of_two_drawn_things_the_clearer_one_is_looked_at_and_not_what_lies_between_them() -> None:
    x, y, side = closer(FEATURES_LOW_LEFT, drawn((2, 2, 0.8), (6, 6, 0.95)))[0].tolist()
    assert (x, y) == (pytest.approx(6.5 / 9, abs=0.02), pytest.approx(6.5 / 9, abs=0.02))
    assert CLOSEST_DRAWN - 1e-6 <= side < 0.55


def test_the_two_are_one_where_they_touch() -> None:
    x, y, side = closer(FEATURES_LOW_LEFT, drawn((2, 3, 0.9), (2, 6, 0.9)))[0].tolist()
    assert (x, y) == (pytest.approx(5 / 9, abs=0.02), pytest.approx(side / 2, abs=0.02))
    assert side > 0.6


def test_where_nothing_is_drawn_the_strongest_features_are_looked_at() -> None:
    x, y, side = closer(FEATURES_LOW_LEFT, drawn((1, 7, 0.4)))[0].tolist()
    assert (x, y) == (pytest.approx(2 / 9, abs=0.02), pytest.approx(7 / 9, abs=0.02))
    assert side >= CLOSEST - 1e-6


@pytest.mark.parametrize(("row", "column"), [(1, 1), (7, 1), (1, 7), (4, 4)])
def test_the_closer_look_stays_in_the_picture(row: int, column: int) -> None:
    x, y, side = closer(FEATURES_LOW_LEFT, drawn((row, column, 0.9)))[0].tolist()
    assert side / 2 - 1e-6 <= min(x, y)
    assert max(x, y) <= 1 - side / 2 + 1e-6


def test_the_branch_is_as_clear_as_its_best_name_in_all_views_and_not_at_all_where_nothing_is_drawn() -> None:
    agreed = torch.tensor([2.0, 0.0, 0.0]).expand(2, 2, 3)
    assert clarity(agreed) == pytest.approx(float(torch.tensor([2.0, 0.0, 0.0]).softmax(0)[0]))
    torn = torch.tensor([[[9.0, 0.0, -9.0], [0.0, 9.0, -9.0]]]).expand(2, 2, 3)
    assert clarity(torn) == pytest.approx(0.5, abs=0.01)
    assert clarity(torch.tensor([0.0, 0.0, 1.0]).expand(2, 2, 3)) == 0.0
