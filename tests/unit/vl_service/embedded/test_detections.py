"""What the branch says by itself: kind, number and colour of what is drawn; and how clear a picture is."""

import pytest
import torch
from PIL import Image, ImageDraw

from vl_service.embedded.model.generator import _clarity
from vl_service.embedded.vision.branch import FINE_GRID
from vl_service.embedded.vision.detections import Thing, colour_under, detect
from vl_service.embedded.vision.features import Views

THINGS = (Thing(name="owl", kind="bird"), Thing(name="", kind="bird"), Thing(name="saw", kind="tool"))
NOTHING = torch.zeros(0)


def square() -> Image.Image:
    """A red disc low on the left of a blue ground."""
    image = Image.new("RGB", (320, 320), (20, 40, 200))
    ImageDraw.Draw(image).ellipse((20, 180, 140, 300), fill=(220, 20, 20))
    return image


def low_left() -> torch.Tensor:
    covered = torch.zeros(FINE_GRID, FINE_GRID)
    covered[10:16, 1:7] = 0.9
    return covered


def views(
    named: list[float], number: float = 1.0, covered: torch.Tensor | None = None,
    tower: tuple[float, float] = (0.1, 0.1),
) -> Views:
    """Both views alike, of these probabilities; `tower` is how sure that is of its class in the whole, and closer."""
    covered = low_left() if covered is None else covered
    whole, close = (torch.tensor([sure, *[(1 - sure) / 999] * 999]).log().expand(2, -1) for sure in tower)
    return Views(grid_BPC=NOTHING, crop_BC=NOTHING, whole_BK=whole, close_BK=close, boxes_B3=NOTHING,
                 drawn_B2C=NOTHING, where_BP=NOTHING, covered_BHW=covered.expand(2, -1, -1),
                 named_B2N=torch.tensor(named).log().expand(2, 2, -1), number_B=torch.full((2,), number))


def test_a_kind_is_as_probable_as_all_names_of_that_kind_together() -> None:
    detections = detect(views([0.3, 0.25, 0.4, 0.05]), square(), THINGS)
    assert detections is not None
    assert (detections.kind, detections.probability) == ("bird", pytest.approx(0.55 / 0.95))


def test_what_is_drawn_is_called_by_the_likeliest_name_and_some_things_by_none() -> None:
    for named, called in (([0.3, 0.25, 0.4, 0.05], "saw"), ([0.25, 0.3, 0.2, 0.25], "")):
        detections = detect(views(named), square(), THINGS)
        assert detections is not None
        assert detections.name == called


@pytest.mark.parametrize(("number", "count"), [(0.2, 1), (1.4, 1), (2.6, 3), (3.9, 4), (6.0, 4)])
def test_things_are_counted_from_one_to_four(number: float, count: int) -> None:
    detections = detect(views([0.7, 0.1, 0.15, 0.05], number), square(), THINGS)
    assert detections is not None
    assert detections.count == count


def test_the_colour_is_that_of_what_is_drawn_and_not_of_the_larger_ground() -> None:
    detections = detect(views([0.7, 0.1, 0.15, 0.05]), square(), THINGS)
    assert detections is not None
    assert detections.colour.endswith("red")
    assert colour_under(square(), torch.ones(FINE_GRID, FINE_GRID)).endswith("blue")
    assert colour_under(square(), 0.3 * low_left()).endswith("red")


def test_nothing_is_said_of_a_scene_without_drawings() -> None:
    assert detect(views([0.1, 0.1, 0.1, 0.7]), square(), THINGS) is None
    assert detect(views([0.7, 0.1, 0.15, 0.05], covered=0.4 * low_left()), square(), THINGS) is None


def test_nothing_is_said_of_what_the_tower_knows_and_the_branch_knows_less_surely() -> None:
    named = [0.55, 0.2, 0.2, 0.05]
    assert detect(views(named, tower=(0.8, 0.4)), square(), THINGS) is None
    assert detect(views(named, tower=(0.6, 0.4)), square(), THINGS) is not None
    assert detect(views([0.3, 0.3, 0.35, 0.05], tower=(0.5, 0.48)), square(), THINGS) is not None


def test_of_a_photograph_the_tower_must_be_as_sure_as_in_training_and_of_a_drawing_the_branch() -> None:
    scene, drawing = [0.02, 0.02, 0.02, 0.94], [0.4, 0.3, 0.2, 0.1]
    assert _clarity(views(scene, tower=(0.5, 0.3))) == 1.0
    assert _clarity(views(scene, tower=(0.3, 0.3))) == 0.0
    assert _clarity(views(drawing, tower=(0.45, 0.45))) == pytest.approx(0.4 / 0.9)
    assert _clarity(views(drawing, tower=(0.9, 0.5))) == 1.0
