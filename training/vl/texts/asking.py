"""Questions in many wordings, and what a careful describer answers to each."""

import random
from collections.abc import Callable

from contracts.describe import Language
from training.vl.texts import chinese, english, question_wordings
from training.vl.texts.sight import Sight, Thing
from vl_service.embedded.vision.colours import colour_name

Pair = tuple[str, str]
"""A question and its answer."""

_GREYS = frozenset({"black", "white", "grey"})
_SETTING_WORDS = {
    "indoors": ("It looks like it was taken indoors.", "看起来是在室内。"),
    "outdoors": ("It looks like it was taken outdoors.", "看起来是在室外。"),
    "under water": ("It was taken under water.", "是在水下拍的。"),
    "unclear": ("I cannot tell whether it is indoors or outdoors.", "无法判断是室内还是室外。"),
}


def _fill(rng: random.Random, table: dict[str, tuple[str, ...]], sight: Sight, language: Language) -> str:
    named = sight.thing is not None and sight.sureness != "unsure"
    thing = sight.thing
    if language == "zh":
        return rng.choice(table["zh"]).format(
            the=chinese.noun(sight) if named else "主体",
            noun=thing.zh if named and thing else "东西",
            measure=thing.measure if thing else "个",
            part="",
        )
    noun = thing.en if named and thing else "subject"
    return rng.choice(table["en"]).format(
        the=f"the {noun}",
        noun=noun,
        many=english.plural(noun) if not (thing and thing.plural and named) else noun,
        a="",
        part="",
    )


def _what(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.WHAT, sight, language)
    if language == "zh":
        text = {
            "sure": f"是{chinese.phrase(sight)}。",
            "likely": f"可能是{chinese.phrase(sight)}。",
            "unsure": f"不确定，是{chinese.phrase(sight)}。" if sight.thing else "我不确定这是什么。",
        }
    else:
        verb = "They are" if sight.count > 1 else "It is"
        text = {
            "sure": f"{verb} {english.phrase(sight)}.",
            "likely": f"Probably {english.phrase(sight)}.",
            "unsure": f"I am unsure; it is {english.phrase(sight)}." if sight.thing else "I am unsure what it is.",
        }
    return question, text[sight.sureness]


def _colour(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.COLOUR, sight, language)
    if sight.grey and sight.colour.split()[-1] in _GREYS:  # a picture with little colour may show a small red thing
        return question, "图片是黑白的。" if language == "zh" else "The picture is black and white."
    if language == "zh":
        return question, f"{chinese.definite(sight)}主要是{colour_name(sight.colour, 'zh')}。"
    return (
        question,
        f"{english.upper(english.definite(sight))} {'are' if sight.count > 1 else 'is'} mainly {sight.colour}.",
    )


def _colours(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.COLOURS, sight, language)
    if language == "zh":
        return question, "图片是黑白的。" if sight.grey else f"主要颜色是{chinese.tones(sight, 3)}。"
    return (
        question,
        "The picture is black and white." if sight.grey else f"The main colours are {english.tones(sight, 3)}.",
    )


def _where(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.WHERE, sight, language)
    if language == "zh":
        return question, f"{chinese.definite(sight)}在画面{chinese.SPOTS[sight.level, sight.side]}。"
    spot = english.SPOTS[sight.level, sight.side]
    return (
        question,
        f"{english.upper(english.definite(sight))} {'are' if sight.count > 1 else 'is'} {spot} of the picture.",
    )


def _count(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.COUNT, sight, language)
    if language == "zh":
        measure = sight.thing.measure if sight.thing else "个"
        return question, f"我数出{chinese.NUMBERS[sight.count]}{measure}。"
    if sight.count == 1:
        return question, "I count one."
    return question, f"I count {english.NUMBERS[sight.count]}."


def _setting(sight: Sight, rng: random.Random, language: Language) -> Pair:
    return _fill(rng, question_wordings.SETTING, sight, language), _SETTING_WORDS[sight.setting][language == "zh"]


def _light(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.LIGHT, sight, language)
    if language == "zh":
        return question, f"{chinese.light(sight)}。"
    return question, f"It is in {english.light(sight)}."


def _sharp(sight: Sight, rng: random.Random, language: Language) -> Pair:
    level = 0 if sight.facts.sharpness < 0.08 else 1 if sight.facts.sharpness < 0.16 else 2
    text = (
        ("The picture is blurred.", "画面模糊。"),
        ("The picture is softly focused.", "画面柔焦。"),
        ("The picture is sharp.", "画面清晰。"),
    )[level]
    return _fill(rng, question_wordings.SHARP, sight, language), text[language == "zh"]


def _part(sight: Sight, rng: random.Random, language: Language) -> Pair:
    layout = sight.facts.layout
    share, en, zh = rng.choice(
        ((layout.sky, "sky", "天空"), (layout.water, "water", "水"), (layout.greenery, "greenery", "绿色植物"))
    )
    question = rng.choice(question_wordings.PARTS[language]).format(part=zh if language == "zh" else en)
    if share >= 0.12:
        return question, f"有，部分画面像{zh}。" if language == "zh" else f"Yes, part of it looks like {en}."
    return question, f"我没有看到{zh}。" if language == "zh" else f"I do not see any {en}."


def _describe(sight: Sight, rng: random.Random, language: Language) -> Pair:
    text = chinese.caption(sight, rng) if language == "zh" else english.caption(sight, rng)
    return rng.choice(question_wordings.DESCRIBE[language]), text


def _unknown(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, question_wordings.UNKNOWN, sight, language)
    return question, "这从图片上看不出来。" if language == "zh" else "I cannot tell that from the picture."


def _there(sight: Sight, rng: random.Random, language: Language, others: list[Thing]) -> Pair:
    """Whether a named thing is there: half of the time the subject, else something else."""
    named = sight.thing is not None and sight.sureness != "unsure"
    present = named and rng.random() < 0.5
    thing = sight.thing if present and sight.thing is not None else rng.choice(others)
    if named and sight.thing is not None and thing.en == sight.thing.en:
        present = True
    if language == "zh":
        question = rng.choice(question_wordings.THERE["zh"]).format(noun=thing.zh)
        if present:
            return question, f"是的，我看到{chinese.phrase(sight)}。"
        rest = f"我看到的是{chinese.phrase(sight)}。" if sight.thing else "我不确定画面里是什么。"
        return question, f"我没有看到{thing.zh}。{rest}"
    one = english.with_article(thing.en) if not thing.plural else f"any {thing.en}"
    question = rng.choice(question_wordings.THERE["en"]).format(a=one)
    if present:
        return question, f"Yes, I see {english.phrase(sight)}."
    rest = f"What I see is {english.phrase(sight)}." if sight.thing else "I am unsure what the picture shows."
    return question, f"I do not see {one}. {rest}"


_KINDS: tuple[tuple[Callable[[Sight, random.Random, Language], Pair], float], ...] = (
    (_what, 1.3),
    (_colour, 1.2),
    (_colours, 0.7),
    (_where, 1.2),
    (_count, 1.6),
    (_setting, 1.0),
    (_light, 0.6),
    (_sharp, 0.3),
    (_part, 0.6),
    (_describe, 0.3),
    (_unknown, 1.2),
)


def ask(sight: Sight, rng: random.Random, language: Language, others: list[Thing]) -> Pair:
    """A random question about the sight with its answer; `others` are things it may ask about in vain."""
    if rng.random() < 0.14:
        return _there(sight, rng, language, others)
    rule = rng.choices([rule for rule, _ in _KINDS], [weight for _, weight in _KINDS])[0]
    if rule is _colour and not sight.colour:
        rule = _colours
    question, answer = rule(sight, rng, language)
    if language == "en" and rng.random() < 0.15:
        question = question.lower().rstrip("?.") + rng.choice(("", "?"))
    return question, answer
