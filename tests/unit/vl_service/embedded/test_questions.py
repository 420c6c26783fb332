"""Questions in words of their own are read as one of those that the decoder was taught, or left to it as they are.

No question about another thing than the subject is read as one about the subject.
"""

import itertools
import re

from contracts.describe import Language
from tests.unit.vl_service.embedded.scripted import Scripted, answers_of
from vl_service.embedded.model.record import Record
from vl_service.embedded.text.answers import LEAST_SURE
from vl_service.embedded.text.questions import CANNOT_TELL, REFUSED, Reading, read_question
from vl_service.embedded.text.subject_words import SubjectWords, words_of_subject

PLAIN = {
    "WHAT": ("What is this?", "这是什么？"), "COLOUR": ("What colour is it?", "它是什么颜色的？"),
    "COLOURS": ("What are the main colours?", "主要颜色是什么？"),
    "WHERE": ("Where is the subject?", "主体在画面的什么位置？"), "COUNT": ("How many are there?", "一共有几个？"),
    "SETTING": ("Is it indoors or outdoors?", "是室内还是室外？"), "LIGHT": ("How is the light?", "光线怎么样？"),
    "SHARP": ("Is it sharp?", "清晰吗？"), "DESCRIBE": ("Describe the picture.", "描述一下这张图片。"),
    "UNKNOWN": ("Who is this?", "这是谁？"), "PARTS": ("", ""), "THERE": ("", ""),
}
LANGUAGES: tuple[Language, ...] = ("en", "zh")
CENTRE = frozenset({"middle"})


def record(name: str, kind: str) -> Record:
    return Record(sureness="sure" if name else "unsure", name=name, kind=kind, count=1, colour="brown", level="middle",
                  side="centre", size="medium", setting="unclear", confidence=0.9)


CAT = words_of_subject(record("tabby cat", "cat"), "虎斑猫")
SOME_ANIMAL = words_of_subject(record("", "animal"), "动物")
NOBODY_KNOWS = words_of_subject(record("", ""), "")


def read(question: str, language: Language | None = None, subject: SubjectWords = CAT) -> Reading:
    spoken: Language = "zh" if any("一" <= letter <= "鿿" for letter in question) else "en"
    return read_question(question, language or spoken, subject, CENTRE)


def plainly(question: str, language: Language) -> str | None:
    return read(question, language).plain or None


WORDINGS: tuple[tuple[str, Language, str | None], ...] = (
    ("So, which animal might that be?", "en", "What is this?"), ("Whereabouts is it?", "en", "Where is the subject?"),
    ("HOW MANY of them?", "en", "How many are there?"), ("How many of them?", "zh", "一共有几个？"),
    ("图里的动物是哪种？", "zh", "这是什么？"), ("这里面是什么颜色", "en", "What colour is it?"),
    ("Is it an orange?", "en", None),
    ("Is there a person inside?", "en", None), ("Sing!", "en", None), ("", "en", None),
)


def test_other_wordings_are_read_in_either_language() -> None:
    for question, language, plain_words in WORDINGS:
        assert plainly(question, language) == plain_words, question


OF_THE_SUBJECT = (
    "What colour is the cat?", "What color are the kittens?", "What colour is the animal?", "What colour is it?",
    "What colour is the cat's fur?", "What colour is the cat on the sofa?",
    "What colour is the picture's subject?", "What colour is the thing in the middle?", "What colours is the cat?",
    "Is the cat black?", "Is it grey or white?", "猫是黑色的吗？", "猫是什么颜色？", "小猫咪是什么颜色的？",
    "沙发上的猫是什么颜色？", "主体是什么颜色的？", "这是什么颜色？",
)


def test_the_subject_may_go_by_its_name_its_kind_or_none() -> None:
    for question in OF_THE_SUBJECT:
        assert read(question).plain in PLAIN["COLOUR"], question


def test_of_an_unnamed_kind_every_thing_of_that_kind_may_be_meant() -> None:
    assert read("What colour is the horse?", subject=SOME_ANIMAL).plain == "What colour is it?"
    assert read("What colour is the horse?", subject=CAT) == REFUSED
    assert read("What colour is the animal?", subject=NOBODY_KNOWS).plain == "What colour is it?"


OF_OTHER_THINGS = (
    "What colour is the sofa?", "What colour are the cat's eyes?", "What color are the clouds?",
    "What colour is the sofa under the cat?", "What colour is the top of the cat?",
    "What colour is the thing on the left?", "What are the main colours of the sofa?", "How many clouds are there?",
    "How many legs does the cat have?", "How many cats are on the left?", "Count the dogs.",
    "How many lights are there?", "Where is the sofa?", "Where is the dog?",
    "Where is the light coming from?", "What is on the left?", "What is next to the cat?",
    "What is the cat holding in the picture?", "Describe the sofa.", "Is the sky bright?", "Is the knife sharp?",
    "Is the cat inside the box?", "Are the clouds white?", "What is the dog sitting on?",
    "沙发是红色的吗？", "猫戴着什么？", "猫的左边是什么？", "沙发是什么颜色？", "猫的眼睛是什么颜色？",
    "有几朵云？", "图中有几个人？", "左边有几只猫？", "沙发在哪里？", "图片左边是什么东西？", "描述一下沙发。",
    "天空亮吗？",
)


def test_a_question_about_another_thing_is_never_read_as_one_about_the_subject() -> None:
    for question, subject in itertools.product(OF_OTHER_THINGS, (CAT, NOBODY_KNOWS)):
        assert read(question, subject=subject) == REFUSED, question


PARTS = (
    ("What colour is the sky?", "sky"), ("Is the sky blue?", "sky"), ("天空是蓝色的吗？", "sky"),
    ("What colours can be seen in the sky?", "sky"), ("天空是什么颜色？", "sky"),
    ("What colour is the sky behind the cat?", "sky"), ("猫后面的天空是什么颜色？", "sky"),
    ("What's the background colour?", "background"), ("What colour is the cat's background?", "background"),
    ("背景是什么颜色？", "background"), ("What colour is the floor?", "ground"), ("地面是什么颜色的？", "ground"),
    ("What color is the grass?", "greenery"), ("草地是什么颜色？", "greenery"), ("海水是什么颜色？", "water"),
    ("What colour is the water?", "water"), ("What colour is the top of the picture?", "upper"),
    ("画面上方是什么颜色？", "upper"), ("What colours are at the bottom?", "lower"),
    ("What colour is the upper left corner?", "upper left"), ("左上角是什么颜色？", "upper left"),
)


def test_the_colour_of_a_part_of_the_picture_is_not_left_to_the_decoder() -> None:
    for (question, part), subject in itertools.product(PARTS, (CAT, NOBODY_KNOWS)):
        assert read(question, subject=subject) == Reading(way="measured", part=part), question


OF_THE_PICTURE = (
    "What colour is the picture?", "What are the main colours?", "How many colours are there?", "图片是什么颜色？",
    "图里有几种颜色？", "What is the palette of this picture of a cat?",
)


def test_the_colours_of_the_picture_are_not_those_of_the_subject() -> None:
    for question in OF_THE_PICTURE:
        assert read(question).plain in PLAIN["COLOURS"], question


def answered(question: str, text: str, least: float = 1.0, language: Language = "en", scene: str = "cat") -> str:
    generator = Scripted(scene, answer=text, least=least)
    answer = answers_of(generator).answer(question, language, 60)
    assert [call.asked for call in generator.asked if call.asked] == [
        read_question(question, language, SubjectWords(), frozenset()).plain or question]
    return answer


def test_a_made_up_answer_to_a_question_that_was_not_taught_is_not_given() -> None:
    made_up = "The tabby cat slowly."
    assert answered("Is it cute?", made_up, LEAST_SURE - 0.01) == CANNOT_TELL["en"]
    assert answered("Is it cute?", made_up, LEAST_SURE + 0.01) == made_up
    assert answered("可爱吗？", "虎斑猫在画面中央。", LEAST_SURE - 0.01, "zh") == CANNOT_TELL["zh"]
    assert answered("Where is it?", made_up, 0.1) == made_up  # that one it was taught


def test_an_answer_that_denies_what_is_there_or_is_in_another_language_is_not_given() -> None:
    assert answered("Is it cute?", "I do not see a tabby cat.") == CANNOT_TELL["en"]
    assert answered("可爱吗？", "我没有看到虎斑猫。", language="zh") == CANNOT_TELL["zh"]
    assert answered("Is it cute?", "虎斑猫。") == CANNOT_TELL["en"]


def test_an_answer_that_names_what_is_only_likely_says_so() -> None:
    assert answered("What is it?", "It is a tabby cat.", scene="likely") == "Probably a tabby cat."
    assert answered("Where is it?", "In the centre.", scene="likely") == "In the centre."


WITHOUT_A_KNOWN_WORD = (
    "Что это?", "これは何ですか", "ما هذا؟", "이것은 무엇입니까?", "यह क्या है?", "Τι είναι;", "¿Qué es esto?",
    "Cosa si vede qui?", "asdf", "???", "🐈?", "12",
)


def test_the_decoder_is_not_asked_about_what_it_does_not_know_nor_in_words_that_it_does_not_know() -> None:
    generator = Scripted("cat", answer="The tabby cat is brown.")
    answers = answers_of(generator)
    for question in (*OF_OTHER_THINGS, *WITHOUT_A_KNOWN_WORD, "What colour is the sky?"):
        language: Language = "zh" if re.search("^[一-鿿]", question) else "en"
        assert answers.answer(question, language, 60) == CANNOT_TELL[language], question
    assert not [call for call in generator.asked if call.asked]
