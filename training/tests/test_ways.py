"""The slot grammar of ways.toml: whatever fills it, a request reads whole, names one motion and no held-out wording."""

import random
from collections.abc import Iterator
from itertools import product

import pytest

from training.video import ways
from training.video.prompts import ADVERBS, ZH_ADVERBS, motion_phrase, way_phrase
from training.video.ways import (
    SLOT,
    TRIES,
    WAY_MOTIONS,
    allowed_draw,
    bare,
    drawn_way,
    filled,
    fillers,
    held_out_wordings,
    templates,
)

LANGUAGES = ("zh", "en")
EVERYWHERE = list(product(WAY_MOTIONS, LANGUAGES))
MIRRORED = [("zoom_in", "zoom_out"), ("pan_left", "pan_right"), ("tilt_up", "tilt_down"), ("rotate_cw", "rotate_ccw")]


def reached(text: str, motion: str, language: str) -> Iterator[str]:
    """Each filler that may stand somewhere in `text`, however deep."""
    for slot in SLOT.findall(text):
        for filler in fillers(slot, motion, language) if slot != "a" else []:
            yield filler
            yield from reached(filler, motion, language)


def test_every_camera_motion_has_ways_in_both_languages() -> None:
    assert set(WAY_MOTIONS) == {"hold", *(motion for pair in MIRRORED for motion in pair)}
    for motion, language in EVERYWHERE:
        assert len(templates(motion, language)) >= (18 if motion == "hold" else 40 if language == "zh" else 30)


@pytest.mark.parametrize(("motion", "language"), EVERYWHERE)
def test_every_template_fills_without_a_brace_left_over(motion: str, language: str) -> None:
    rng = random.Random(0)
    for template in templates(motion, language):
        for _ in range(20):
            text = filled(template, motion, rng, language, "slowly")
            assert text
            assert not set("{}") & set(text), text
            assert (language == "en") == text.isascii() or "slowly" in text


@pytest.mark.parametrize(("motion", "language"), EVERYWHERE)
def test_the_speed_stands_once_in_each_template_and_in_no_filler(motion: str, language: str) -> None:
    for template in templates(motion, language):
        assert template.count("{a}") == (motion != "hold"), template
        assert not [filler for filler in reached(template, motion, language) if "{a}" in filler], template


@pytest.mark.parametrize(("motion", "language"), EVERYWHERE)
def test_five_thousand_draws_hardly_repeat(motion: str, language: str) -> None:
    rng = random.Random(0)
    assert len({drawn_way(motion, rng, language) for _ in range(5000)}) > 3500


@pytest.mark.parametrize("pair", MIRRORED)
def test_mirrored_motions_never_make_the_same_request(pair: tuple[str, str]) -> None:
    for language in LANGUAGES:
        one, other = (
            {bare(drawn_way(motion, rng, language)) for _ in range(20_000)}
            for motion, rng in zip(pair, (random.Random(1), random.Random(2)), strict=True)
        )
        assert not one & other


def test_a_speed_that_is_not_normal_is_said() -> None:
    rng = random.Random(0)
    for motion, speed in product(sorted(set(WAY_MOTIONS) - {"hold"}), ("slow", "fast")):
        for language, adverbs in (("zh", ZH_ADVERBS[speed]), ("en", ADVERBS[speed])):
            for _ in range(20):
                request = way_phrase(motion, speed, rng, language)
                assert any(adverb in request for adverb in adverbs), request


def test_requests_of_the_grammar_are_among_those_trained_on() -> None:
    drawn = {drawn_way("pan_left", random.Random(seed), "zh") for seed in range(50)}
    assert len(drawn) > 40
    said = [motion_phrase("pan_left", "normal", None, random.Random(seed), "zh") for seed in range(400)]
    assert sum("从" in text and "到" in text for text in said) > 20


def test_a_request_with_a_held_out_wording_in_it_is_drawn_again() -> None:
    draws = iter(["请 Pan, LEFT，谢谢", "镜头向左", "tilt up"])
    assert allowed_draw(lambda: next(draws), frozenset({"panleft", "镜头向左"})) == "tilt up"


def test_drawing_gives_up_where_every_request_holds_one() -> None:
    with pytest.raises(RuntimeError, match=f"each of {TRIES}"):
        allowed_draw(lambda: "Tilt up!", frozenset({"tiltup"}))


def test_what_is_drawn_from_the_grammar_passes_that_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> list[str]:
        return [drawn_way("pan_left", random.Random(seed), "zh") for seed in range(300)]

    assert sum("从" in text for text in drawn()) > 50
    monkeypatch.setattr(ways, "held_out_wordings", lambda: frozenset({"从"}))
    assert not [text for text in drawn() if "从" in text]


def test_no_request_of_the_grammar_contains_a_held_out_wording() -> None:
    rng = random.Random(0)
    held = held_out_wordings()
    found = 0  # counted, so that a failure does not print the wordings to whoever writes the grammar
    for motion, language in EVERYWHERE:
        for _ in range(20_000 // len(EVERYWHERE) + 1):
            request = bare(drawn_way(motion, rng, language))
            found += any(wording in request for wording in held)
    assert held
    assert found == 0
