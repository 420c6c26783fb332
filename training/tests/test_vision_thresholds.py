"""Thresholds follow from what was named rightly: nothing more is said, and nothing surely, than is mostly true."""

import random

import pytest
from PIL import Image, ImageDraw

from training.vl.pictures.redrawn import redrawn
from training.vl.thresholds import Fresh, Named, choose, surely_right
from vl_service.embedded.model.observation import Thresholds

NOTHING = Fresh(names=[], kinds=[], own=[])


def named(*pairs: tuple[float, bool]) -> list[Named]:
    return [Named(probability=probability, right=right) for probability, right in pairs]


def test_what_is_more_often_wrong_than_right_is_not_named() -> None:
    chosen = choose(named((0.9, True), (0.8, True), (0.5, True), (0.4, False), (0.3, False), (0.2, True)), [], NOTHING)
    assert 0.4 < chosen.likely < 0.5
    assert chosen.sure >= chosen.likely


def test_surely_means_nine_times_in_ten() -> None:
    right = [(0.99 - n / 1000, True) for n in range(18)]
    wrong = [(0.7, False), (0.69, False), (0.68, False)]  # with the first two of them 18 of 20 are right
    chosen = choose(named(*right, *wrong, *[(0.5 - n / 100, True) for n in range(6)]), [], NOTHING)
    assert chosen.likely < 0.45
    assert 0.68 < chosen.sure < 0.69


def test_what_is_drawn_must_be_as_surely_right() -> None:
    right = [(0.99 - n / 1000, True) for n in range(9)]
    assert 0.3 < surely_right(named(*right, (0.4, False), (0.3, False))) < 0.4
    assert surely_right(named((0.9, False), (0.8, True))) == 1.0


def test_a_kind_has_its_own_threshold() -> None:
    chosen = choose([], named((0.6, True), (0.5, True), (0.2, False)), NOTHING)
    assert chosen.kind == 0.35  # two of three are too few
    assert (chosen.sure, chosen.likely) == (1.0, 1.0)


def test_where_no_name_is_ever_right_nothing_is_said() -> None:
    never = Thresholds(sure=1.0, likely=1.0, kind=1.0, drawn_kind=1.0, drawn=1.0, guess=1.0)
    assert choose(named((0.9, False), (0.8, False)), [], NOTHING) == never


def test_what_is_drawn_for_the_first_time_has_thresholds_of_its_own() -> None:
    """A kind is only said where there is no name, so kinds beside a name do not count."""
    names, kinds = named((0.6, True), (0.5, False), (0.1, False)), named((0.35, True), (0.4, True), (0.3, False))
    fresh = Fresh(names=names, kinds=kinds, own=[])
    chosen = choose([], [], fresh)
    assert 0.5 < chosen.drawn < 0.6
    assert chosen.drawn_kind == pytest.approx(0.35)


def test_a_drawing_is_named_nineteen_times_in_twenty_rightly_and_guessed_at_where_it_is_mostly_right() -> None:
    """Strangers have no say in guesses: the text says that it is unsure."""
    sure = [(0.99 - n / 1000, True) for n in range(19)]
    own = named(*sure, (0.6, False), (0.55, False), (0.5, True), (0.45, True), (0.4, True), (0.3, False))
    strangers = named((0.58, False), (0.42, False), (0.41, False))
    chosen = choose([], [], Fresh(names=[*own, *strangers], kinds=[*own, *strangers], own=own))
    assert 0.58 < chosen.drawn < 0.6
    assert 0.3 < chosen.guess < 0.4


def test_a_redrawn_drawing_is_another_one_and_has_no_empty_rim() -> None:
    drawing = Image.new("RGBA", (60, 40))
    ImageDraw.Draw(drawing).ellipse((5, 5, 50, 35), fill=(200, 40, 40, 255))
    made = [redrawn(drawing, random.Random(seed)) for seed in range(6)]
    assert len({image.tobytes() for image in made}) == 6
    for image in made:
        assert image.getchannel("A").getbbox() == (0, 0, *image.size)
