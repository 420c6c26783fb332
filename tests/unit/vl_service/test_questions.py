"""Questions: answered from the record, in the language asked for, and honest about what is not in it."""

import pytest

from contracts.describe import Language
from tests.unit.vl_service.scenes import ESPRESSO, TABBY, landscape, plain, scene_of, spotted
from vl_service.caption import write_caption
from vl_service.edits import suggest_edits
from vl_service.questions import answer_question
from vl_service.scene import facts_as_text

CAT = scene_of({TABBY: 0.9}, cell=(1, 1))


@pytest.mark.parametrize(("question", "language", "part"), [
    ("What is this?", "en", "a tabby cat; I am 90% sure"), ("这是什么？", "zh", "一只虎斑猫，把握约90%"),
    ("What colours does it have?", "en", "brown 100%"), ("是什么颜色的？", "zh", "棕色 100%"),
    ("Where is the cat?", "en", "in the upper left of the picture"), ("猫在哪里？", "zh", "画面左上方"),
    ("How bright is it?", "en", "evenly lit"), ("画面亮吗？", "zh", "光线均匀"),
    ("Is there a cat?", "en", "Yes, I see a tabby cat"), ("有猫吗？", "zh", "是的，看起来有一只虎斑猫"),
    ("Is it a dog?", "en", "I do not see a dog. A tabby cat"), ("是狗吗？", "zh", "我没有看到一只狗"),
    ("Is this a lion?", "en", "I do not see a lion. A tabby cat"),
    ("Is it a tabby cat?", "en", "Yes, I see a tabby cat"),
    ("Is it a Persian cat?", "en", "I do not see a Persian cat. A tabby cat"),
    ("是老虎吗？", "zh", "我没有看到一只老虎"),
    ("Describe the picture.", "en", "Almost all of it is brown"), ("描述一下这张图片", "zh", "画面几乎全是棕色"),
    ("Is it indoors or outdoors?", "en", "cannot tell"), ("是室内吗？", "zh", "无法判断"),
    ("How large is it?", "en", "cannot tell"), ("What is its resolution?", "en", "192x128"),
    ("分辨率是多少？", "zh", "192×128"),
    ("Is there any sky?", "en", "I do not measure any sky"),
])
def test_questions_are_answered_from_the_record(question: str, language: Language, part: str) -> None:
    assert part in answer_question(CAT, question, language).text


@pytest.mark.parametrize("question", [
    "How many cats are there?", "What does the sign say?", "Who is this?", "How old is she?", "Where was this taken?",
    "Why is the cat sad?", "What will the weather be tomorrow?", "How heavy is it?", "What brand is the camera?",
    "Translate this.", "What time is it?", "Is the cat sleeping?", "What is the cat doing?", "Can you see a person?",
    "Is she happy?", "Does it have whiskers?",
])
def test_what_cannot_be_known_is_said_to_be_unknown(question: str) -> None:
    reply = answer_question(CAT, question, "en")
    assert "cannot tell" in reply.text or "does not tell" in reply.text
    assert reply.confidence is None


@pytest.mark.parametrize(("question", "part"), [
    ("有几只猫？", "无法判断"), ("上面写着什么字？", "无法判断"), ("这个人是谁？", "无法判断"),
    ("在哪里拍的？", "看不出来"), ("猫在做什么？", "无法判断"), ("有人吗？", "无法判断"),
])
def test_what_cannot_be_known_is_said_in_chinese(question: str, part: str) -> None:
    assert part in answer_question(CAT, question, "zh").text


def test_an_outdoor_picture_is_called_outdoors() -> None:
    outdoors = scene_of({}, landscape(horizon=0.4))
    assert "outdoors" in answer_question(outdoors, "Indoors or outdoors?", "en").text
    assert "39% of the picture" in answer_question(outdoors, "Is there any sky?", "en").text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_unsure_is_said_and_the_guess_is_marked_as_one(language: Language) -> None:
    unsure = scene_of({TABBY: 0.2, ESPRESSO: 0.12})
    for text in (write_caption(unsure, language), answer_question(unsure, "What is this?", language).text):
        assert ("unsure" in text and "perhaps a tabby cat or a cup of espresso" in text) or (
            "不确定" in text and "也许是一只虎斑猫或一杯浓缩咖啡" in text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_with_no_evidence_not_even_a_guess_is_made(language: Language) -> None:
    caption = write_caption(scene_of({}), language)
    assert caption.startswith(("I cannot tell what this picture shows.", "看不出这张图片拍的是什么。"))


def test_likely_is_worded_below_sure() -> None:
    assert write_caption(scene_of({TABBY: 0.48}), "en").startswith("Probably a tabby cat (48% sure)")
    assert "可能是一只虎斑猫（把握约48%）" in write_caption(scene_of({TABBY: 0.48}), "zh")
    assert write_caption(scene_of({TABBY: 0.9}), "en").startswith("A tabby cat")


def test_the_caption_says_where_the_subject_is() -> None:
    corners = {(1, 1): "upper left", (1, 7): "upper right", (7, 1): "lower left", (7, 7): "lower right"}
    for cell, words in corners.items():
        assert words in write_caption(scene_of({TABBY: 0.9}, cell=cell), "en")


def test_a_black_and_white_picture_is_called_one() -> None:
    assert "black-and-white" in write_caption(scene_of({}, spotted(0.5, 0.5)), "en")
    assert "黑白" in write_caption(scene_of({}, spotted(0.5, 0.5)), "zh")
    assert "black-and-white" not in write_caption(scene_of({}, plain()), "en")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_three_edits_one_a_line_all_different(language: Language) -> None:
    for scene in (CAT, scene_of({}), scene_of({}, landscape()), scene_of({ESPRESSO: 0.9}, plain(colour=(20, 20, 20)))):
        for seed in range(6):
            lines = suggest_edits(scene, language, seed).split("\n")
            assert len(set(lines)) == 3
            assert all(lines)


def test_facts_are_short_strings() -> None:
    facts = facts_as_text(CAT)
    assert facts["size"] == "192x128"
    assert facts["seen"].startswith("a tabby cat 0.90")
    assert facts["palette"] == "brown 1.00"
