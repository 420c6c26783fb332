"""What training answers agrees with what is true of the picture, as the evaluation judges it."""

import random
from dataclasses import replace

import pytest

from contracts.describe import Language
from training.evaluation.vl import verdicts
from training.vl.texts import asking
from training.vl.texts.sight import Thing
from training.vl.texts.vocabulary import random_sight

APPLE = Thing(en="apple", zh="苹果", kind_en="fruit", kind_zh="水果", measure="个", group="food", plural=False)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("colour", ["red", "light grey", "dark blue", "white"])
@pytest.mark.parametrize("colourfulness", [0.01, 0.2])
def test_the_colour_of_a_thing_is_the_true_one_even_in_a_nearly_grey_picture(
    language: Language, colour: str, colourfulness: float
) -> None:
    sight = random_sight(APPLE, random.Random(0))
    sight = replace(sight, colour=colour, facts=replace(sight.facts, colourfulness=colourfulness))
    assert sight.grey == (colourfulness < 0.03)
    _, answer = asking._colour(sight, random.Random(0), language)
    assert verdicts.says_colour(answer, {colour.split()[-1]}, language)
