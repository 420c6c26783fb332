"""The paraphrases of the evaluation are wordings that training never reads."""

import re

from training.evaluation.set import HELD_OUT, MANY_STEPS, MANY_STEPS_PHOTOS, MOTIONS, make_cases
from training.video import prompts
from training.video.scenes import SPEEDS


def bare(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def trained() -> set[str]:
    """Every wording of the training with every word of speed in it, and the service's own sentences."""
    speeds = (prompts.ADVERBS, prompts.ZH_ADVERBS, prompts.ADJECTIVES)
    speed_words = {word for table in speeds for words in table.values() for word in words} | {""}
    ways = [way for table in (prompts.ENGLISH, prompts.CHINESE) for some in table.values() for way in some]
    said = {bare(way.format(a=word, j=word, s="it")) for way in ways for word in speed_words}
    own = {prompts.service_sentence(motion, speed, "it", language)
           for motion in MOTIONS for speed in SPEEDS for language in ("en", "zh")}
    return said | {bare(text) for text in own if text}


def test_none_of_them_occurs_in_the_training_whatever_its_case_and_punctuation() -> None:
    seen = trained()
    assert bare("The camera slowly zooms in!") in seen, "the comparison itself works"
    held = [wording for ways in HELD_OUT.values() for some in ways.values() for wording in some]
    assert not [wording for wording in held if bare(wording) in seen]
    assert len({bare(wording) for wording in held}) == len(held), "nor does one stand under two motions"


def framed() -> set[str]:
    """Every phrase of the training with every word of speed at either side, which frames are put around."""
    said: set[str] = set()
    for motion, phrases in prompts.PHRASES.items():
        for kind, table in (("do", prompts.ADVERBS), ("noun", prompts.ADJECTIVES), ("zh", prompts.ZH_ADVERBS)):
            speeds = {word for words in table.values() for word in words} | {""}
            turns = prompts.CLOCKWISE.get(motion, {}).get("zh" if kind == "zh" else "en", [""])
            space = "" if kind == "zh" else " "
            said |= {bare(f"{a}{space}{phrase.format(cw=turn)}{space}{b}") for phrase in phrases[kind] for turn in turns
                     for speed in speeds for a, b in (("", speed), (speed, ""))}
    return said


def test_nor_does_any_frame_around_any_phrase_say_one_of_them() -> None:
    phrases = framed()
    frames = [frame.split("{x}") for some in prompts.FRAMES.values() for frame in some]

    def inside(text: str) -> set[str]:
        edges = [(bare(before), bare(after)) for before, after in frames]
        return {text[len(before): len(text) - len(after)].strip() for before, after in edges
                if text.startswith(before) and text.endswith(after)}

    assert inside(bare("Please zoom in slowly.")) & phrases, "the comparison itself works"
    held = [wording for ways in HELD_OUT.values() for some in ways.values() for wording in some]
    assert not [wording for wording in held if inside(bare(wording)) & phrases]


def test_every_judged_motion_has_four_in_english_and_three_in_chinese() -> None:
    assert tuple(HELD_OUT) == MOTIONS
    for motion, ways in HELD_OUT.items():
        assert len(ways["en"]) >= 4, motion
        assert len(ways["zh"]) >= 3, motion
        assert all(text.isascii() for text in ways["en"])
        assert not any(text.isascii() for text in ways["zh"])


def test_each_ask_reads_its_own_wordings_and_many_steps_repeat_the_single_motions() -> None:
    asks = ("single", "paraphrase", "chinese", "many_steps")
    cases = make_cases(["a", "b", "c"], ["zoom_in", "hold"], 1, 0, "en", asks)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        if case.asked == "paraphrase":
            assert case.prompt in HELD_OUT[case.motion]["en"]
        if case.asked == "chinese":
            assert case.prompt in HELD_OUT[case.motion]["zh"]
    few = {(case.picture, case.motion): case.prompt for case in cases if case.asked == "single"}
    many = [case for case in cases if case.asked == "many_steps"]
    assert len(many) == MANY_STEPS_PHOTOS * 2
    assert all(case.prompt == few[case.picture, case.motion] and case.steps == MANY_STEPS for case in many)
