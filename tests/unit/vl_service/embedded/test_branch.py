"""The branch for drawings, and the closer look that it leads."""

import pytest
import torch

from vl_service.embedded.vision.branch import EARLY, FINE_GRID, LATE, Branch, Branches, own_features, shared, start_of
from vl_service.embedded.vision.features import CLOSEST, CLOSEST_DRAWN, GRID, clarity, closer, cut, drawn_names
from vl_service.embedded.vision.tower import ImageNetTower


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


@pytest.mark.parametrize("start", [EARLY, LATE])
def test_a_new_branch_has_the_later_blocks_of_the_tower_and_shares_no_weight_with_it(
    tower: ImageNetTower, start: int
) -> None:
    branch = Branch(tower.model, 3, start)
    late = [value for block in tower.model._blocks[start:] for value in block.parameters()]
    for ours, theirs in zip(branch.blocks.parameters(), late, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_where_a_branch_begins_can_be_told_from_its_weights(tower: ImageNetTower) -> None:
    for start in (EARLY, LATE):
        assert start_of(tower.model, Branch(tower.model, 3, start).state_dict()) == start
    with pytest.raises(ValueError, match="a branch has 2 blocks"):
        start_of(tower.model, ["names.bias", "blocks.0._bn0.weight", "blocks.1._bn0.weight", "blocks.1._bn0.bias"])


@pytest.mark.parametrize("start", [EARLY, LATE])
def test_a_branch_sees_the_same_grid_as_the_tower(tower: ImageNetTower, pixels: torch.Tensor, start: int) -> None:
    branch = Branch(tower.model, 3, start).eval()
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
    several = Branches(Branch(tower.model, 3, start) for start in (LATE, EARLY, LATE)).eval()
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


def box(where: torch.Tensor, aspect: float = 1.0) -> list[float]:
    """Centre, width and height of the closer look."""
    return closer(FEATURES_LOW_LEFT, where, torch.tensor([aspect]))[0].tolist()


FEATURES_LOW_LEFT = torch.ones(1, 8, GRID, GRID)
FEATURES_LOW_LEFT[0, :, 6:8, 1:3] = 9.0


def test_of_two_drawn_things_the_clearer_one_is_looked_at_and_not_what_lies_between_them() -> None:
    x, y, side, _ = box(drawn((2, 2, 0.8), (6, 6, 0.95)))
    assert (x, y) == (pytest.approx(6.5 / 9, abs=0.02), pytest.approx(6.5 / 9, abs=0.02))
    assert CLOSEST_DRAWN - 1e-6 <= side < 0.55


def test_the_two_are_one_where_they_touch() -> None:
    x, y, side, _ = box(drawn((2, 3, 0.9), (2, 6, 0.9)))
    assert (x, y) == (pytest.approx(5 / 9, abs=0.02), pytest.approx(side / 2, abs=0.02))
    assert side > 0.6


def test_where_nothing_is_drawn_the_strongest_features_are_looked_at() -> None:
    x, y, side, _ = box(drawn((1, 7, 0.4)))
    assert (x, y) == (pytest.approx(2 / 9, abs=0.02), pytest.approx(7 / 9, abs=0.02))
    assert side >= CLOSEST - 1e-6


@pytest.mark.parametrize(("row", "column"), [(1, 1), (7, 1), (1, 7), (4, 4)])
def test_the_closer_look_stays_in_the_picture(row: int, column: int) -> None:
    x, y, side, _ = box(drawn((row, column, 0.9)))
    assert side / 2 - 1e-6 <= min(x, y)
    assert max(x, y) <= 1 - side / 2 + 1e-6


@pytest.mark.parametrize("aspect", [0.56, 1.0, 1.5, 1.8])
def test_the_closer_look_is_square_in_the_picture_however_that_was_squeezed(aspect: float) -> None:
    for where in (drawn((4, 4, 0.9)), drawn((2, 3, 0.9), (2, 6, 0.9))):
        _, _, width, height = box(where, aspect)
        assert width * aspect == pytest.approx(height, rel=1e-4)
        same = box(where.transpose(1, 2), 1 / aspect)
        assert [same[3], same[2]] == [pytest.approx(width, rel=1e-4), pytest.approx(height, rel=1e-4)]


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_a_disc_is_round_in_the_closer_look_however_its_picture_was_squeezed(aspect: float) -> None:
    across = torch.linspace(-1, 1, 320)
    disc = ((across**2 * aspect + across[:, None] ** 2 / aspect) < 0.16).float()
    where = torch.nn.functional.adaptive_avg_pool2d(disc[None], GRID)
    seen = cut(disc.expand(1, 3, -1, -1), closer(FEATURES_LOW_LEFT, where, torch.tensor([aspect])))[0, 0] > 0.5
    wide, high = int(seen.any(0).sum()), int(seen.any(1).sum())
    assert 100 < wide < 250
    assert wide == pytest.approx(high, rel=0.02)


def seen(*probabilities: float) -> torch.Tensor:
    """Both looks at both views alike; the last is that of none at all."""
    return torch.tensor(probabilities).log().expand(2, 2, -1)


def test_the_branches_are_as_clear_as_their_best_name_in_all_views() -> None:
    assert clarity(seen(0.7, 0.3, 0.0)) == pytest.approx(0.7)
    torn = torch.tensor([[[9.0, 0.0, -9.0], [0.0, 9.0, -9.0]]]).expand(2, 2, 3)
    assert clarity(torn) == pytest.approx(0.5, abs=0.01)


def test_a_name_is_as_probable_as_if_something_is_drawn_unless_nothing_more_probably_is() -> None:
    """A small thing is seen only closer: half of the looks find nothing."""
    assert drawn_names(seen(0.42, 0.1, 0.48)).tolist() == [pytest.approx(0.42 / 0.52), pytest.approx(0.1 / 0.52)]
    assert clarity(seen(0.42, 0.06, 0.52)) == 0.0
