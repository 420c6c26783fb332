"""Questions in words of their own are read as one of those that the decoder was taught, or left to it as they are."""

import pytest

from contracts.describe import Language
from tests.unit.vl_service.answering import Answering
from tests.unit.vl_service.scenes import plain
from tests.unit.vl_service.taught import taught
from training.vl import question_wordings
from vl_service.pictures import Picture
from vl_service.plain_question import CANNOT_TELL, plainly
from vl_service.teller import LEAST_SURE, Teller

PLAIN = {
    "WHAT": ("What is this?", "这是什么？"), "COLOUR": ("What colour is it?", "它是什么颜色的？"),
    "COLOURS": ("What are the main colours?", "主要颜色是什么？"),
    "WHERE": ("Where is the subject?", "主体在画面的什么位置？"), "COUNT": ("How many are there?", "一共有几个？"),
    "SETTING": ("Is it indoors or outdoors?", "是室内还是室外？"), "LIGHT": ("How is the light?", "光线怎么样？"),
    "SHARP": ("Is it sharp?", "清晰吗？"), "DESCRIBE": ("Describe the picture.", "描述一下这张图片。"),
    "UNKNOWN": ("Who is this?", "这是谁？"), "PARTS": ("", ""), "THERE": ("", ""),
}
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def wordings(table: str, language: Language) -> list[str]:
    words = {"en": {"the": "the cat", "many": "cats", "noun": "cat", "measure": "", "part": "water", "a": "a dog"},
             "zh": {"the": "猫", "many": "", "noun": "猫", "measure": "只", "part": "水", "a": ""}}[language]
    return [way.format(**words) for way in getattr(question_wordings, table)[language]]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("table", PLAIN)
def test_no_wording_of_the_training_is_taken_for_another_question(table: str, language: Language) -> None:
    expected = PLAIN[table][LANGUAGES.index(language)]
    for way in wordings(table, language):
        assert plainly(way, language) in (None, expected), way


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("table", [table for table, (plain_words, _) in PLAIN.items() if plain_words])
def test_what_is_asked_plainly_is_a_wording_of_the_training(table: str, language: Language) -> None:
    asked = PLAIN[table][LANGUAGES.index(language)]
    known = [way.format(the="the subject" if language == "en" else "主体", many="", noun="", measure="", part="", a="")
             for way in getattr(question_wordings, table)[language]]
    assert asked in known
    assert plainly(asked, language) in (None, asked)


@pytest.mark.parametrize(("question", "language", "plain_words"), [
    ("So, which animal might that be?", "en", "What is this?"), ("Whereabouts is it?", "en", "Where is the subject?"),
    ("HOW MANY of them?", "en", "How many are there?"), ("How many of them?", "zh", "一共有几个？"),
    ("图里的动物是哪种？", "zh", "这是什么？"), ("这里面是什么颜色", "en", "What colour is it?"),
    ("Is there a person inside?", "en", None), ("Sing!", "en", None), ("", "en", None),
])
def test_other_wordings_are_read_in_either_language(question: str, language: Language, plain_words: str | None) -> None:
    assert plainly(question, language) == plain_words


def answered(question: str, text: str, least: float = 1.0, language: Language = "en", scene: str = "cat") -> str:
    speaker = Answering(taught()[scene], text, least)
    glimpse = speaker.see(Picture(rgb=plain(), width=192, height=128), lambda: None)
    answer = Teller(speaker, glimpse, lambda: None).answer(question, language, 60)
    assert speaker.asked == [plainly(question, language) or question]
    return answer


def test_a_made_up_answer_to_a_question_that_was_not_taught_is_not_given() -> None:
    made_up = "The tabby cat slowly."
    assert answered("Sing!", made_up, LEAST_SURE - 0.01) == CANNOT_TELL["en"]
    assert answered("Sing!", made_up, LEAST_SURE + 0.01) == made_up
    assert answered("唱歌！", "虎斑猫在画面中央。", LEAST_SURE - 0.01, "zh") == CANNOT_TELL["zh"]
    assert answered("Where is it?", made_up, 0.1) == made_up  # that one it was taught


def test_an_answer_that_denies_what_is_there_is_not_given() -> None:
    assert answered("Is it cute?", "I do not see a tabby cat.") == CANNOT_TELL["en"]
    assert answered("可爱吗？", "我没有看到虎斑猫。", language="zh") == CANNOT_TELL["zh"]


def test_an_answer_in_another_language_is_not_given() -> None:
    assert answered("Sing!", "虎斑猫。") == CANNOT_TELL["en"]


def test_an_answer_that_names_what_is_only_likely_says_so() -> None:
    assert answered("What is it?", "It is a tabby cat.", scene="likely") == "Probably a tabby cat."
    assert answered("Where is it?", "In the centre.", scene="likely") == "In the centre."
