"""The rules over a model's text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.describe import MAX_TEXT_CHARS, Language
from vl_service.prompts.polish import (
    clean,
    in_language,
    length,
    lines,
    one_paragraph,
    polish_prompt,
    polish_text,
    sentences,
)


@pytest.mark.parametrize(("raw", "cleaned"), [
    ("**A cat** on a `mat`.", "A cat on a mat."),
    ('"A cat on a mat."', "A cat on a mat."),
    ("“一只猫。”", "一只猫。"),
    ("Prompt: A cat on a mat.", "A cat on a mat."),
    ("Sure! Here is the prompt: A cat.", "A cat."),
    ("Here's a caption for the picture: A cat.", "A cat."),
    ("提示词：一只猫。", "一只猫。"),
    ("## Title\nA cat.", "Title\nA cat."),
    ("<think>hmm, a cat?</think>A cat.", "A cat."),
    ('The sign says "open" and "closed"', 'The sign says "open" and "closed"'),
    ('"open" is on the sign, not "closed"', '"open" is on the sign, not "closed"'),
])
def test_what_models_put_around_a_text_is_taken_off(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_lists_become_lines_or_a_paragraph() -> None:
    raw = "1. Zoom in\n- Pan left\n* Zoom in\n\n• Hold\n2) Tilt up"
    assert lines(raw, 3) == "Zoom in\nPan left\nHold"
    assert one_paragraph("- A cat.\n- A mat.", "en") == "A cat. A mat."


def test_a_model_that_runs_in_circles_is_cut_at_its_first_repetition() -> None:
    circling = "A cat sits. It looks. A cat sits! A cat sits."
    assert polish_text(circling, language="en", limit=50) == "A cat sits. It looks."
    assert polish_text("一只猫。它在看。一只猫。", language="zh", limit=50) == "一只猫。它在看。"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_text_too_long_ends_at_a_sentence_within_the_limit(language: Language) -> None:
    text = "".join(f"这是第{number}句话。" for number in range(30)) if language == "zh" else " ".join(
        f"This is sentence number {number}." for number in range(30))
    cut = polish_text(text, language=language, limit=24)
    assert length(cut, language) <= 24
    assert text.startswith(cut)
    assert cut[-1] in ".。"


def test_one_endless_sentence_is_cut_at_a_clause() -> None:
    text = "a cat that sits, and sits, and goes on sitting, for ever and ever and ever and ever until the end"
    assert polish_text(text, language="en", limit=12) == "a cat that sits, and sits, and goes on sitting."


def test_the_language_is_judged_outside_quotation_marks() -> None:
    assert in_language("一只猫坐在垫子上。", "zh")
    assert not in_language("A cat sits on a mat.", "zh")
    assert not in_language("一只猫坐在垫子上。", "en")
    assert in_language('A sign reads "欢迎光临我们的小店".', "en")


def test_quoted_words_that_a_model_lost_come_back_in_the_users_sentence() -> None:
    user_words = 'A sign says "OPEN 24h" and blinks.'
    text = polish_prompt(
        "A shop at night. The lights glow.", language="en", limit=40, user_prompt=user_words)
    assert text.startswith(user_words)
    assert "A shop at night." in text


USER_WORDS = (
    "Кот прыгает через стол", "ねこがとぶ", "قطة تقفز فوق الطاولة", "고양이가 뛴다", "חתול קופץ על השולחן",
    "बिल्ली कूदती है",
    "แมวกระโดด", "η γάτα πηδάει", "🐈💨", "👩‍👩‍👧‍👦", "12345", "!!!", "e\u0301te\u0301",
    "zoom in, 猫が跳ぶ", "one\ntwo\n\n  three",
    "1. zoom in\n2. pan left", "Prompt: **a** `cat`", "Hop! Hop! Hop!", '"OPEN  24h"', "<think>a cat</think> a dog",
    "a" * 4000,
)


@pytest.mark.parametrize("words", USER_WORDS, ids=ascii)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_users_words_stay_to_the_letter_and_the_model_gives_way(words: str, language: Language) -> None:
    joiner = "" if language == "zh" else " "
    for written in (f"A cat sits.{joiner}{words}.{joiner}It looks. It looks.", words, f"{words}. A cat sits.", ""):
        text = polish_prompt(written, language=language, limit=12, user_prompt=f" {words}\n")
        assert words in text
        assert len(text) <= MAX_TEXT_CHARS
        assert text.count("It looks.") <= 1


def test_what_the_model_says_of_the_camera_is_its_own_affair() -> None:
    """The rules know no vocabulary of motion: that is one backend's."""
    written = "A cat sits. The camera pans left. The camera zooms in."
    assert polish_prompt(written, language="en", limit=40, user_prompt="pan left") == written


def test_words_of_any_script_are_told_apart() -> None:
    assert polish_text("का है। कि है। का है।", language="en", limit=50) == "का है। कि है।"


@given(st.text(max_size=300), st.sampled_from(["en", "zh"]), st.integers(1, 60))
def test_no_text_makes_polish_fail_or_exceed_its_limit(text: str, language: Language, limit: int) -> None:
    polished = polish_text(text, language=language, limit=limit)
    assert length(polished, language) <= limit + 1  # the full stop set after a cut


def test_abbreviated_and_quoted_sentence_ends_split_well() -> None:
    assert sentences('He said "Go." Then left. 好。再见！') == ['He said "Go."', "Then left.", "好。", "再见！"]
