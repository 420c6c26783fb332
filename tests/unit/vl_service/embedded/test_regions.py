"""The colours of parts of a picture are told as they were measured, and only of what was."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from contracts.describe import Language
from tests.unit.vl_service.scenes import landscape, plain
from vl_service.embedded.model.record import Record
from vl_service.embedded.text.regions import colour_there
from vl_service.embedded.vision.facts import ImageFacts, measure_facts

SMALL = Record(sureness="sure", name="cat", kind="cat", count=1, colour="red", level="middle", side="centre",
               size="small", setting="unclear", confidence=0.9)
LARGE = replace(SMALL, size="large")
LOW = replace(SMALL, level="bottom")


def facts_of(picture: Image.Image) -> ImageFacts:
    return measure_facts(picture, width=picture.width, height=picture.height)


def quarters() -> Image.Image:
    """Red, green over blue, white."""
    pixels = np.zeros((120, 120, 3), dtype=np.uint8)
    pixels[:60, :60], pixels[:60, 60:], pixels[60:, :60], pixels[60:, 60:] = (
        (208, 24, 24), (32, 136, 32), (16, 64, 192), (255, 255, 255))
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("part", "english", "chinese"), [
    ("sky", "What looks like sky is mostly light blue.", "看起来像天空的部分大多是浅蓝色。"),
    ("upper", "The upper part of the picture is mostly light blue.", "画面上部大多是浅蓝色。"),
    ("ground", "The lower part of the picture is mostly green.", "画面下部大多是绿色。"),
    ("greenery", "What looks like greenery is mostly green.", "看起来像植物的部分大多是绿色。"),
    ("left", "The left side of the picture is mostly green and light blue.", "画面左侧大多是绿色和浅蓝色。"),
])
def test_a_part_has_the_colours_that_were_measured_there(part: str, english: str, chinese: str) -> None:
    facts = facts_of(landscape(horizon=0.42))
    assert colour_there(part, facts, SMALL, "en") == english
    assert colour_there(part, facts, SMALL, "zh") == chinese


@pytest.mark.parametrize(("part", "colour"), [
    ("upper left", "red"), ("upper right", "green"), ("lower left", "blue"), ("lower right", "white"),
])
def test_each_corner_is_where_its_name_says(part: str, colour: str) -> None:
    said = colour_there(part, facts_of(quarters()), SMALL, "en")
    assert said == f"The {part} corner of the picture is mostly {colour}."


def test_many_colours_are_not_called_mostly_one() -> None:
    noise = Image.fromarray(np.random.default_rng(0).choice(
        np.array([[208, 24, 24], [32, 136, 32], [16, 64, 192], [255, 255, 255]], dtype=np.uint8), (120, 120)))
    languages: tuple[tuple[Language, str], ...] = (("en", "many colours"), ("zh", "颜色很杂"))
    for language, words in languages:
        said = colour_there("edges", facts_of(noise), SMALL, language)
        assert said is not None
        assert words in said


@pytest.mark.parametrize("part", ["sky", "water", "greenery"])
def test_of_what_does_not_look_like_it_no_colour_is_told(part: str) -> None:
    assert colour_there(part, facts_of(plain()), SMALL, "en") is None


def test_the_background_is_not_told_where_the_subject_may_fill_the_picture() -> None:
    facts = facts_of(quarters())
    assert colour_there("background", facts, SMALL, "en") is not None
    assert colour_there("background", facts, LARGE, "en") is None
    even = colour_there("background", facts_of(plain(colour=(255, 255, 255))), LARGE, "en")
    assert even == "Towards its edges the picture is mostly white."  # one colour all around is no subject's


@pytest.mark.parametrize("record", [LARGE, LOW])
def test_the_ground_is_not_told_where_the_subject_may_hide_it(record: Record) -> None:
    assert colour_there("ground", facts_of(landscape()), record, "en") is None
