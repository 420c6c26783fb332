"""Each judge of texts passes what is true of the picture and fails what is not, in both languages."""

import tomllib
from dataclasses import replace

import pytest

from contracts.describe import Language
from training.evaluation.vl import verdicts
from training.vl.pictures.compose import Truth
from training.vl.pictures.concepts import Concept, role_of
from vl_service.prompts.profiles import profiles

CAT = 281  # ImageNet's tabby cat
OWL = Concept(en="owl", zh="猫头鹰", kind_en="bird", kind_zh="鸟", measure="只", group="bird", plural=False,
              role="held", files=(), held_files=())


def truth(x: float = 0.5, y: float = 0.5, extent: float = 0.1, count: int = 1) -> Truth:
    return Truth(concept=0, count=count, colour="red", x=x, y=y, extent=extent, setting="outdoors", aspect=1.0)


@pytest.mark.parametrize(("text", "language", "right"), [
    ("A tabby cat on the left of the picture.", "en", True),
    ("Two cats in the centre.", "en", True),
    ("A category of things, catching light.", "en", False),
    ("A dog on the left of the picture.", "en", False),
    ("画面中央是一只虎斑猫。", "zh", True),
    ("画面中央是一只狗。", "zh", False),
])
def test_a_class_is_named_by_its_own_name_or_its_kinds(text: str, language: Language, right: bool) -> None:
    assert verdicts.names_it(text, verdicts.words_of_class(CAT), language) is right


def test_an_espresso_may_be_called_a_coffee_and_a_cup_may_not() -> None:
    espresso = verdicts.words_of_class(967)
    assert verdicts.names_it("A cup of coffee, filling most of the picture.", espresso, "en")
    assert not verdicts.names_it("A coffee cup, filling most of the picture.", espresso, "en")


@pytest.mark.parametrize(("text", "language", "right"), [
    ("Some kind of bird; I am unsure which.", "en", True),
    ("I am unsure what this picture shows; perhaps a kite.", "en", True),
    ("Some kind of bird, perhaps a swan, on the left; I am unsure which one.", "en", True),
    ("Some kind of food, perhaps an owl, on the left; I am unsure which one.", "en", True),
    ("Some kind of food, perhaps a cake, on the left; I am unsure which one.", "en", False),
    ("An owl in the upper half of the picture.", "en", True),
    ("A wall clock in the centre of the picture. I am unsure about the light.", "en", False),
    ("Some kind of vehicle; I am unsure which.", "en", False),
    ("A teddy bear on the left. A bird sits behind it.", "en", False),
    ("画面里是某种鸟，不确定具体是什么。", "zh", True),
    ("不确定这张图片拍的是什么。", "zh", True),
    ("画面中央是一只钟表。", "zh", False),
    ("画面里是某种车辆，不确定具体是什么。", "zh", False),
])
def test_of_an_unknown_thing_a_kind_or_doubt_is_no_invention(text: str, language: Language, right: bool) -> None:
    assert verdicts.invents_nothing(text, OWL, language) is right


@pytest.mark.parametrize(("text", "language", "right"), [
    ("A white coat in the centre of the picture.", "en", True), ("A cloak in the centre of the picture.", "en", False),
    ("画面中央是一件外套。", "zh", True), ("画面中央是一件斗篷。", "zh", False),
])
def test_a_broader_name_that_is_true_is_no_invention(text: str, language: Language, right: bool) -> None:
    coat = replace(OWL, en="lab coat", zh="白大褂", kind_en="thing to wear", kind_zh="穿戴用品", group="clothing")
    assert verdicts.invents_nothing(text, coat, language) is right


def test_only_what_no_training_names_has_broader_names_and_none_is_its_own() -> None:
    for name, words in tomllib.loads(verdicts.BROADER.read_text("utf-8")).items():
        assert role_of(name) == "held", name
        assert name not in words["en"]


@pytest.mark.parametrize(("text", "language", "guess"), [
    ("Some kind of bird, perhaps a swan, on the left; I am unsure which one.", "en", True),
    ("A swan on the left. It was perhaps taken outdoors.", "en", False),
    ("画面左侧是某种鸟，可能是天鹅，不确定具体是哪一种。", "zh", True), ("画面左侧是一只天鹅。", "zh", False),
])
def test_a_name_that_is_only_guessed_is_noticed(text: str, language: Language, guess: bool) -> None:
    assert verdicts.only_guesses(text, language) is guess


@pytest.mark.parametrize(("text", "language", "right"), [
    ("Tones of dark red and white, in even light.", "en", True),
    ("Tones of blue and white.", "en", False),
    ("A blurred, colourful scene.", "en", False),
    ("Red, blue, green, yellow, white and pink.", "en", False),
    ("色调以暗红色和白色为主。", "zh", True),
    ("色调以深蓝色为主。", "zh", False),
])
def test_a_colour_counts_by_its_family_and_not_among_nearly_all(text: str, language: Language, right: bool) -> None:
    assert verdicts.says_colour(text, {"red"}, language) is right


def test_longer_colour_names_are_not_read_as_shorter_ones() -> None:
    assert verdicts.colours_said("light blue sky", "en") == {"blue"}
    assert verdicts.colours_said("橄榄绿与浅灰色", "zh") == {"green", "grey"}
    assert "white" in verdicts.colours_said("A black-and-white picture.", "en")


@pytest.mark.parametrize(("text", "language", "right"), [
    ("A cat in the upper left of the picture.", "en", True),
    ("A cat on the left of the picture.", "en", True),
    ("A cat on the right of the picture.", "en", False),
    ("A cat in the lower left of the picture.", "en", False),
    ("A cat in the centre of the picture.", "en", False),
    ("A cat. A level line crosses the lower third of the picture.", "en", False),
    ("A cat filling most of the picture.", "en", False),
    ("画面左上方是一只猫。", "zh", True),
    ("画面右侧是一只猫。", "zh", False),
    ("一只猫。上方像是开阔的天空。", "zh", False),
])
def test_a_place_is_true_words_and_no_false_one(text: str, language: Language, right: bool) -> None:
    assert verdicts.says_place(text, truth(x=0.2, y=0.25), language) is right


@pytest.mark.parametrize(("text", "language", "right"), [
    ("I count three.", "en", True), ("There are 3 of them.", "en", True), ("I count two.", "en", False),
    ("Two or three.", "en", False), ("I do not count things; I am unsure which one.", "en", False),
    ("我数出三个。", "zh", True), ("我数出两个。", "zh", False), ("不会数数量。", "zh", False),
])
def test_a_number_is_said_alone(text: str, language: Language, right: bool) -> None:
    assert verdicts.says_count(text, 3, language) is right


@pytest.mark.parametrize(("text", "language", "right"), [
    ("It looks like it was taken outdoors.", "en", True), ("It was taken indoors.", "en", False),
    ("I cannot tell whether it is indoors or outdoors.", "en", False),
    ("看起来是在室外。", "zh", True), ("看起来是在室内。", "zh", False),
])
def test_a_setting_is_said_and_not_both(text: str, language: Language, right: bool) -> None:
    assert verdicts.says_setting(text, "outdoors", language) is right


@pytest.mark.parametrize(("text", "language", "right"), [
    ("A photo of a cat.", "en", True), ("A photo of a 猫.", "en", False), ("一只猫的照片。", "en", False),
    ("一只家电（washer）的照片。", "zh", True), ("A photo of a cat.", "zh", False),
])
def test_the_language_is_the_one_asked_for(text: str, language: Language, right: bool) -> None:
    assert verdicts.right_language(text, language) is right


@pytest.mark.parametrize(("text", "language", "circles"), [
    ("A cat sits. The light is soft.", "en", False),
    ("Tones of dark grey 44%, grey 35% and black.", "en", False),
    ("A cat sits. The light is soft. A cat sits.", "en", True),
    ("A cat is is here.", "en", True),
    ("The cat sits on the red mat in the sun and then the cat sits on the red mat in the sun", "en", True),
    ("镜头缓缓推近，猫慢慢抬头。", "zh", False),
    ("水面泛起波纹波纹波纹。", "zh", True),
    ("镜头缓缓推近。镜头缓缓推近。", "zh", True),
])
def test_running_in_circles_is_caught(text: str, language: Language, circles: bool) -> None:
    assert verdicts.repeats(text, language) is circles


def test_every_profile_has_a_least_length_in_each_of_its_languages_below_its_limit() -> None:
    assert set(verdicts.LEAST_LENGTH) == set(profiles())
    for name, profile in profiles().items():
        assert set(verdicts.LEAST_LENGTH[name]) == set(profile.languages), name
        for language in profile.languages:
            least, most = verdicts.prompt_bounds(profile, language)
            joiner = "" if language == "zh" else " "
            word = "字" if language == "zh" else "word"
            sizes = [(least, True), (least - 1, False), (most, True), (most + 1, False)]
            for size, right in sizes:
                assert verdicts.right_length(joiner.join([word] * size), (least, most), language) is right
