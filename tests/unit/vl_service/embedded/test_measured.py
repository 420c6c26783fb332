"""Colours are said as they were measured, and a likely name as likely."""

import itertools

from contracts.describe import Language
from tests.unit.vl_service.embedded.scripted import PICTURE, SCENES, Scripted, answers_of
from tests.unit.vl_service.scenes import plain
from vl_service.embedded.text.measured import main_colours, with_measured_colours
from vl_service.embedded.text.phrasing import guessed, hedged
from vl_service.embedded.vision.facts import ImageFacts, measure_facts


def striped() -> ImageFacts:
    """Half orange, three tenths dark blue, a fifth blue."""
    picture = plain(100, 100, (250, 140, 20))
    picture.paste((15, 25, 70), (0, 0, 30, 100))
    picture.paste((30, 80, 200), (30, 0, 50, 100))
    return measure_facts(picture, width=100, height=100)


def test_the_main_colours_are_those_of_the_palette_one_of_a_family() -> None:
    assert main_colours(striped()) == ["orange", "dark blue"]


LISTS: tuple[tuple[str, Language, str | None], ...] = (
    ("The main colours are brown, red and brown, in dim light.", "en",
     "The main colours are orange and dark blue, in dim light."),
    ("in tones of orange and red; the rest", "en", "in tones of orange and dark blue; the rest"),
    ("A red cat and a dog.", "en", "A red cat and a dog."), ("A cat on the left and right.", "en", None),
    ("主要颜色是棕色、红色和棕色，光线昏暗。", "zh", "主要颜色是橙色和深蓝色，光线昏暗。"),
    ("一只红色的猫和狗。", "zh", None),
)


def test_lists_of_colours_are_replaced_and_nothing_else() -> None:
    for said, language, written in LISTS:
        assert with_measured_colours(said, striped(), language) == (written or said)


def test_of_a_grey_picture_black_and_white_stays() -> None:
    grey = measure_facts(plain(colour=(90, 90, 90)), width=192, height=128)
    text = "The picture is black and white."
    assert with_measured_colours(text, grey, "en") == text


def test_a_decoder_that_reads_colours_right_is_never_corrected() -> None:
    languages: tuple[Language, ...] = ("en", "zh")
    for scene, language in itertools.product(SCENES, languages):
        generator = Scripted(scene)
        observation = generator.see(PICTURE, lambda: None)
        said = generator.say(observation, ["<caption>", f"<{language}>"], "", 300, None, lambda: None)
        text = generator.tokenizer.decode(said.tokens)
        assert with_measured_colours(text, observation.facts, language) == text


LIKELY: tuple[tuple[str, Language, str | None], ...] = (
    ("Four spoons in the centre. It is dim.", "en", "Probably four spoons in the centre. It is dim."),
    ("Probably a spoon.", "en", None), ("It is a spoon.", "en", "Probably a spoon."),
    ("I am unsure what it is.", "en", None), ("", "en", None),
    ("画面中央是一把勺子。", "zh", "画面中央可能是一把勺子。"),
    ("一把勺子几乎占满画面。", "zh", "可能是一把勺子几乎占满画面。"),
    ("可能是一把勺子。", "zh", None), ("是的，我看到一把勺子。", "zh", "是的，我看到的可能是一把勺子。"),
)


def test_a_likely_name_is_said_as_likely() -> None:
    for text, language, said in LIKELY:
        assert hedged(text, language) == (text if said is None else said)


def test_a_likely_picture_is_captioned_with_a_probably_and_a_sure_one_without() -> None:
    for scene, probably in (("likely", True), ("cat", False)):
        answers = answers_of(Scripted(scene))
        assert ("Probably" in answers.caption("en", 200, 0)) is probably
        assert ("可能" in answers.caption("zh", 200, 0)) is probably


GUESSED: tuple[tuple[str, str, str, Language, str | None], ...] = (
    ("Some kind of bird, on the left; I am unsure which one. It is dim.", "some kind of bird", "a chicken", "en",
     "Some kind of bird, perhaps a chicken, on the left; I am unsure which one. It is dim."),
    ("I am unsure; it is some kind of bird.", "some kind of bird", "a chicken", "en",
     "I am unsure; it is some kind of bird, perhaps a chicken."),
    ("Two of some kind of bird on the left; I am unsure which one.", "two of some kind of bird", "chickens", "en",
     "Two of some kind of bird, perhaps chickens, on the left; I am unsure which one."),
    ("I am unsure what this picture shows. It is dim.", "", "a chicken", "en",
     "I am unsure what this picture shows, perhaps a chicken. It is dim."),
    ("画面左侧是某种鸟，不确定具体是哪一种。光线昏暗。", "某种鸟", "一只鸡", "zh",
     "画面左侧是某种鸟，可能是一只鸡，不确定具体是哪一种。光线昏暗。"),
    ("不确定，是某种鸟。", "某种鸟", "一只鸡", "zh", "不确定，是某种鸟，可能是一只鸡。"),
    ("不确定这张图片拍的是什么。光线昏暗。", "", "一只鸡", "zh", "不确定这张图片拍的是什么，可能是一只鸡。光线昏暗。"),
    ("I am unsure; it is some kind of bird.", "some kind of bird", "", "en", None),
    ("The bird is on the left.", "some kind of bird", "a chicken", "en", None), ("", "", "a chicken", "en", None),
)


def test_a_guess_is_said_where_the_text_says_that_it_is_unsure() -> None:
    for text, phrase, guess, language, said in GUESSED:
        assert guessed(text, phrase, guess, language) == (text if said is None else said)
