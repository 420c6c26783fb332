"""What the branch for drawings learns from: its pictures, and which drawings are for it."""

import random

import pytest
import torch
from PIL import Image
from torch import Tensor

from training.vl.pictures.compose import Stock
from training.vl.pictures.concepts import Concept
from training.vl.pictures.drawings import OTHERS, Drawings, kept_back, named_concepts, outlined, own_files
from training.vl.teach_branch import LEVELLED, NEW, go_on_from, maps_loss, teach
from vl_service.embedded.vision.branch import EARLY, FINE_GRID, LATE, Branch, Drawn, shared
from vl_service.embedded.vision.features import TOWER_SIDE
from vl_service.embedded.vision.tower import ImageNetTower

COLOURS = {"square.webp": (255, 0, 0, 255), "bar.webp": (0, 0, 255, 255)}


def concept(name: str, files: tuple[str, ...], role: str = "known", held: tuple[str, ...] = ()) -> Concept:
    return Concept(en=name, zh="物", kind_en="thing", kind_zh="物", measure="个", group="thing", plural=False,
                   role=role, files=files, held_files=held)


def stock_of(sizes: dict[str, tuple[int, int]]) -> Stock:
    cutouts = {name: Image.new("RGBA", size, COLOURS[name]) for name, size in sizes.items()}
    return Stock(photographs=(), cutouts=cutouts, concepts=())


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    stock = stock_of({"square.webp": (100, 100), "bar.webp": (120, 30)})
    grey = torch.full((4, 3, 320, 320), 128, dtype=torch.uint8)
    return Drawings(stock, [["square.webp"], [], ["bar.webp"]], grey)


@pytest.fixture(scope="module")
def shown(drawings: Drawings) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    composed = drawings.batch(96)
    return composed.pixels, composed.labels, composed.covered_BHW


def test_pictures_are_as_the_tower_reads_them(shown: tuple[Tensor, Tensor, Tensor]) -> None:
    pixels, labels, where = shown
    assert pixels.shape == (96, 3, TOWER_SIDE, TOWER_SIDE)
    assert where.shape == (96, FINE_GRID, FINE_GRID)
    assert pixels.min() >= -127 / 128
    assert pixels.max() <= 1
    assert labels.shape == (96,)


def test_only_things_that_have_drawings_are_drawn_and_some_pictures_show_none(
    drawings: Drawings, shown: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, labels, where = shown
    assert set(labels.tolist()) == {0, 2, drawings.none}
    share = where.mean((1, 2))
    assert bool((share[labels == drawings.none] == 0).all())
    assert bool((share[labels != drawings.none] > 0).all())


def test_cells_that_show_something_differ_from_the_scene_and_the_others_do_not(
    shown: tuple[Tensor, Tensor, Tensor]
) -> None:
    """A plain scene has one colour, before light, blur and noise."""
    pixels, labels, where = shown
    for picture, share in zip(pixels[labels == 0], where[labels == 0], strict=True):
        cells = torch.nn.functional.adaptive_avg_pool2d(picture[None], FINE_GRID)[0]
        empty, full = cells[:, share == 0], cells[:, share == 1]
        if empty.shape[1] and full.shape[1]:
            assert (empty - empty.median(dim=1, keepdim=True).values).abs().max() < 0.25
    assert bool((where[labels == 0].amax((1, 2)) > 0.9).any())


def test_a_drawing_keeps_its_shape() -> None:
    stock = stock_of({"bar.webp": (120, 30)})
    (cutout,) = Drawings(stock, [["bar.webp"]], torch.zeros(1, 3, 320, 320, dtype=torch.uint8)).cutouts
    rows, columns = (cutout[3] > 0).any(1).sum(), (cutout[3] > 0).any(0).sum()
    assert (int(rows), int(columns)) == (40, 160)


def test_the_branch_learns_from_most_drawings_of_a_thing_and_from_all_where_they_are_few() -> None:
    rng = random.Random(2)
    kept = total = 0
    for number in range(200):
        files = tuple(f"drawings/{number}-{turn}.webp" for turn in range(rng.randrange(1, 10)))
        own = own_files(concept("cat", files, held=("cutouts/held.webp",)))
        assert own
        assert set(own) <= set(files)
        if len(files) > 2:
            total += len(files)
            kept += len(files) - len(own)
            assert not any(kept_back(file) for file in own) or own == list(files)
        else:
            assert own == list(files)
    assert 0.1 < kept / total < 0.3


def test_what_no_training_shows_has_no_name_in_the_branch() -> None:
    concepts = [concept("cat", ("a",)), concept("gong", ("b",), "held"), concept("robot", ("c",), "strange")]
    assert named_concepts(concepts) == [0, 2]


def test_the_middles_add_up_to_the_number_of_things_and_lie_on_what_is_covered(drawings: Drawings) -> None:
    torch.manual_seed(4)
    composed = drawings.batch(64)
    number = composed.middles_BHW.sum((1, 2))
    assert set(number.round().int().tolist()) == {0, 1, 2, 3, 4}
    assert torch.allclose(number, number.round(), atol=1e-4)
    assert bool((number[composed.labels == drawings.none] == 0).all())
    on_things = (composed.middles_BHW * (composed.covered_BHW > 0)).sum() / number.sum()
    assert on_things > 0.9


def test_several_things_lie_mostly_apart(drawings: Drawings) -> None:
    """Four that hid one another could not be counted."""
    torch.manual_seed(5)
    composed = drawings.batch(128)
    cells = 0
    for middles in composed.middles_BHW[composed.middles_BHW.sum((1, 2)).round() == 4]:
        peaks = torch.nn.functional.max_pool2d(middles[None], 3, 1, 1)[0] == middles
        cells += int((peaks & (middles > 0.1)).sum()) == 4
    assert cells / int((composed.middles_BHW.sum((1, 2)).round() == 4).sum()) > 0.8


def drawn(covered: Tensor, middles: Tensor) -> Drawn:
    nothing = torch.zeros(1)
    return Drawn(features_BCHW=nothing, where_BHW=nothing, covered_BHW=covered, number_BHW=middles, named_BN=nothing)


def test_maps_that_tell_the_truth_have_the_least_loss(drawings: Drawings) -> None:
    torch.manual_seed(6)
    shown = drawings.batch(8)
    sure = (shown.covered_BHW.clamp(1e-3, 1 - 1e-3)).logit()
    truth = maps_loss(drawn(sure, shown.middles_BHW), shown.covered_BHW, shown.middles_BHW)
    for covered, factor in ((-sure, 1), (sure, 0), (sure, 2)):
        wrong = drawn(covered, factor * shown.middles_BHW)
        assert maps_loss(wrong, shown.covered_BHW, shown.middles_BHW) > truth + 0.05


def test_teaching_changes_every_part_of_the_branches_and_leaves_the_tower(drawings: Drawings) -> None:
    tower = ImageNetTower().model
    torch.manual_seed(7)
    branches = [Branch(tower, drawings.none + 1, start) for start in (EARLY, LATE)]
    before = [{name: value.clone() for name, value in branch.state_dict().items()} for branch in branches]
    kept = {name: value.clone() for name, value in tower.state_dict().items()}
    taught = teach(tower, branches, drawings, 0.1, batch=4, say=lambda _: None)
    for branch, was in zip(taught, before, strict=True):
        changed = {name.partition(".")[0] for name, value in branch.state_dict().items()
                   if not torch.equal(value, was[name])}
        assert changed == {"blocks", *NEW}
        assert not torch.equal(branch.state_dict()["blocks.0._bn0.weight"], was["blocks.0._bn0.weight"])
        with torch.inference_mode():
            assert branch(shared(tower, torch.zeros(1, 3, TOWER_SIDE, TOWER_SIDE))).number_BHW.isfinite().all()
    assert all(torch.equal(value, kept[name]) for name, value in tower.state_dict().items())


def test_a_name_that_is_shown_more_often_is_not_likelier_for_that() -> None:
    """Nine drawings of one thing, one of the other: three times as often."""
    stock = Stock(photographs=(), concepts=(), cutouts={f"{at}.webp": Image.new("RGBA", (9, 9), (9, 9, 9, 255))
                                                        for at in range(10)})
    scenes = torch.zeros(1, 3, 320, 320, dtype=torch.uint8)
    often = Drawings(stock, [[f"{at}.webp" for at in range(9)], ["9.webp"]], scenes, others={"tool": ["9.webp"]},
                     kinds=["tool", "tool"])
    torch.testing.assert_close(often.shown(), torch.tensor([0.75, 0.25, (0.75 * 0.25) ** 0.5]))
    tower = ImageNetTower().model
    branch = Branch(tower, 3)
    before = branch.names.bias.detach().clone()
    (taught,) = teach(tower, [branch], often, 0.1, batch=4, rate=0.0, say=lambda _: None)
    torch.testing.assert_close(taught.names.bias, before - LEVELLED * often.shown().log())


def test_a_branch_that_goes_on_from_a_later_one_sees_what_that_one_saw() -> None:
    tower = ImageNetTower().model
    torch.manual_seed(9)
    late, early = (Branch(tower, 3, start).eval() for start in (LATE, EARLY))
    with torch.no_grad():
        for value in late.parameters():
            value.mul_(1.1)
    go_on_from(early, late.state_dict(), tower)
    with torch.inference_mode():
        begun = shared(tower, torch.rand(1, 3, TOWER_SIDE, TOWER_SIDE))
        assert torch.equal(early(begun).named_BN, late(begun).named_BN)


def test_things_are_as_wide_and_as_narrow_as_squeezed_pictures_make_them() -> None:
    """A square alone on the ground; a picture of 16 to 9 makes it 0.56 as wide as high."""
    stock = stock_of({"square.webp": (100, 100)})
    torch.manual_seed(10)
    drawings = Drawings(stock, [["square.webp"]], torch.zeros(1, 3, 320, 320, dtype=torch.uint8))
    shapes: list[float] = []
    for _ in range(4):
        shown = drawings.batch(64)
        for covered in shown.covered_BHW[shown.middles_BHW.sum((1, 2)).round() == 1]:
            if covered[0].sum() + covered[-1].sum() + covered[:, 0].sum() + covered[:, -1].sum() == 0:
                shapes.append(float(covered.amax(0).sum() / covered.amax(1).sum()))
    assert len(shapes) > 40
    assert min(shapes) < 0.65
    assert max(shapes) > 1.5


def test_what_has_no_name_is_as_likely_any_of_its_kind_and_what_is_put_together_both_by_their_share() -> None:
    stock = stock_of({"square.webp": (100, 100), "bar.webp": (120, 30)})
    scenes = torch.zeros(2, 3, 320, 320, dtype=torch.uint8)
    kinds = ["tool", "bird", "tool"]
    torch.manual_seed(8)
    alone = Drawings(stock, [["square.webp"], [], []], scenes, others={"tool": ["bar.webp"]}, kinds=kinds).batch(200)
    tools = alone.targets_BN[alone.labels == 4]
    assert len(tools) > 0
    assert torch.equal(tools[0], torch.tensor([0.5, 0.0, 0.5, 0.0]))
    torch.testing.assert_close(alone.targets_BN.sum(1), torch.ones(200))
    joined = Drawings(stock, [["square.webp"], ["bar.webp"], []], scenes, joined=1.0).batch(200)
    both = joined.targets_BN[(joined.targets_BN[:, :2] > 0).all(1)]
    assert len(both) > 20
    torch.testing.assert_close(joined.targets_BN.sum(1), torch.ones(200))
    assert bool((joined.targets_BN[joined.labels == joined.targets_BN.shape[1] - 1, :-1] == 0).all())
    assert both[:, 0].std() > 0.05  # the line is not always at the same place


def test_drawings_without_a_name_are_shown_as_often_as_they_should_be() -> None:
    stock = stock_of({"square.webp": (100, 100), "bar.webp": (120, 30)})
    drawings = Drawings(stock, [["square.webp"]] * 9, torch.zeros(2, 3, 320, 320, dtype=torch.uint8),
                        others={"tool": ["bar.webp"]}, kinds=["tool"] * 9)
    assert float(drawings.shares[drawings.labels > drawings.none].sum()) == pytest.approx(OTHERS)


def test_an_outline_is_black_lies_on_edges_and_takes_nothing_from_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = torch.zeros(8, 4, 40, 40)
    piece[:, :3], piece[:, 3, 8:32, 8:32] = 0.8, 1.0
    monkeypatch.setattr("training.vl.pictures.drawings.OUTLINED", 1.0)
    monkeypatch.setattr("training.vl.pictures.drawings.EMPTY", 0.0)
    monkeypatch.setattr("training.vl.pictures.drawings.SILHOUETTE", 0.0)
    lined = outlined(piece)
    assert float(lined[:, :3, 8, 8:32].max()) < 0.05
    assert torch.equal(lined[:, :3, 14:26, 14:26], piece[:, :3, 14:26, 14:26])
    assert bool((lined[:, 3] >= piece[:, 3]).all())
    monkeypatch.setattr("training.vl.pictures.drawings.OUTLINED", 0.0)
    assert torch.equal(outlined(piece)[:, 3], piece[:, 3])
