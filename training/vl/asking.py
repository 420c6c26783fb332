"""Questions in many wordings, and what a careful describer answers to each."""

import random
from collections.abc import Callable

from contracts.describe import Language
from training.vl import chinese, english
from training.vl.sight import Sight, Thing
from vl_service.colours import colour_name

Pair = tuple[str, str]
"""A question and its answer."""

_WHAT = {
    "en": (
        "What is this?",
        "What is in the picture?",
        "What do you see?",
        "What does the picture show?",
        "What is it?",
        "What is the main subject?",
        "Which thing is this?",
        "What's in this photo?",
        "Name the main object.",
        "What can be seen here?",
        "What object is this?",
    ),
    "zh": ("这是什么？", "图片里有什么？", "画面中是什么？", "主体是什么？", "你看到了什么？", "这张照片拍的是什么？"),
}
_COLOUR = {
    "en": (
        "What colour is {the}?",
        "What color is {the}?",
        "Which colour does {the} have?",
        "What colour is it?",
        "What is the colour of {the}?",
        "What color is the main subject?",
    ),
    "zh": ("{the}是什么颜色的？", "{the}是什么颜色？", "主体是什么颜色？", "它是什么颜色的？"),
}
_COLOURS = {
    "en": (
        "What are the main colours?",
        "Which colors dominate the picture?",
        "What colours are in the picture?",
        "What is the dominant colour?",
        "What colour is the picture mostly?",
    ),
    "zh": ("主要颜色是什么？", "图片以什么颜色为主？", "画面有哪些颜色？", "整体是什么色调？"),
}
_WHERE = {
    "en": (
        "Where is {the}?",
        "Where is it?",
        "Where is the subject?",
        "In which part of the picture is {the}?",
        "On which side is {the}?",
        "Where in the picture is the main object?",
    ),
    "zh": ("{the}在哪里？", "它在哪里？", "主体在画面的什么位置？", "{the}在哪一边？"),
}
_COUNT = {
    "en": (
        "How many {many} are there?",
        "How many {many} do you see?",
        "How many are there?",
        "Count the {many}.",
        "How many objects are in the picture?",
        "What is the number of {many}?",
    ),
    "zh": ("有几{measure}{noun}？", "图中有多少{measure}{noun}？", "一共有几个？", "数一数有几{measure}{noun}？"),
}
_SETTING = {
    "en": (
        "Is it indoors or outdoors?",
        "Was this taken inside or outside?",
        "Indoors or outdoors?",
        "Is this outdoors?",
        "Is it inside a building?",
        "Where was it taken, inside or outside?",
    ),
    "zh": ("是室内还是室外？", "这是在户外吗？", "是在室内拍的吗？", "室内还是户外？"),
}
_LIGHT = {
    "en": (
        "How is the light?",
        "Is it bright or dark?",
        "What is the lighting like?",
        "How bright is the picture?",
        "Is it dark?",
    ),
    "zh": ("光线怎么样？", "画面亮吗？", "是亮还是暗？", "光线如何？"),
}
_SHARP = {
    "en": ("Is it sharp?", "Is the picture blurry?", "Is it in focus?"),
    "zh": ("清晰吗？", "画面模糊吗？", "对焦准吗？"),
}
_PARTS = {
    "en": ("Is there any {part}?", "Can you see {part}?", "Does the picture show {part}?"),
    "zh": ("有{part}吗？", "能看到{part}吗？", "画面里有没有{part}？"),
}
_THERE = {
    "en": ("Is there {a}?", "Do you see {a}?", "Is this {a}?", "Is it {a}?", "Can you see {a} in the picture?"),
    "zh": ("有{noun}吗？", "是{noun}吗？", "图片里有没有{noun}？", "这是不是{noun}？"),
}
_UNKNOWN = {
    "en": (
        "Who is this?",
        "What is his name?",
        "Who took this picture?",
        "What does the sign say?",
        "What is written there?",
        "Read the text.",
        "Where was this taken?",
        "In which city is this?",
        "What country is this?",
        "Why is it there?",
        "Why?",
        "What time is it?",
        "What year was this?",
        "When was this taken?",
        "How old is it?",
        "How old is she?",
        "What brand is it?",
        "How much does it cost?",
        "How heavy is it?",
        "How tall is it?",
        "What is it doing?",
        "What is the {noun} doing?",
        "What will happen next?",
        "Is she happy?",
        "Is the {noun} asleep?",
        "Does it bite?",
        "What does it smell like?",
        "Is it expensive?",
        "What is the weather tomorrow?",
        "Translate this.",
        "Tell me a joke.",
        "What is behind the camera?",
        "Who owns the {noun}?",
        "Is it real?",
        "What is the capital of France?",
    ),
    "zh": (
        "这是谁？",
        "上面写着什么字？",
        "这是在哪里拍的？",
        "是哪个城市？",
        "现在几点？",
        "为什么？",
        "它在做什么？",
        "{noun}在干什么？",
        "多少钱？",
        "它多大了？",
        "是什么牌子的？",
        "她高兴吗？",
        "有多重？",
        "什么时候拍的？",
        "接下来会发生什么？",
        "{noun}叫什么名字？",
        "明天天气怎么样？",
    ),
}
_DESCRIBE = {
    "en": ("Describe the picture.", "Tell me about this picture.", "Describe what you see."),
    "zh": ("描述一下这张图片。", "讲讲这张图片。", "请描述画面。"),
}
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
    question = _fill(rng, _WHAT, sight, language)
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
    question = _fill(rng, _COLOUR, sight, language)
    if sight.grey:
        return question, "图片是黑白的。" if language == "zh" else "The picture is black and white."
    if language == "zh":
        return question, f"{chinese.definite(sight)}主要是{colour_name(sight.colour, 'zh')}。"
    return (
        question,
        f"{english.upper(english.definite(sight))} {'are' if sight.count > 1 else 'is'} mainly {sight.colour}.",
    )


def _colours(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, _COLOURS, sight, language)
    if language == "zh":
        return question, "图片是黑白的。" if sight.grey else f"主要颜色是{chinese.tones(sight, 3)}。"
    return (
        question,
        "The picture is black and white." if sight.grey else f"The main colours are {english.tones(sight, 3)}.",
    )


def _where(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, _WHERE, sight, language)
    if language == "zh":
        return question, f"{chinese.definite(sight)}在画面{chinese._SPOTS[sight.level, sight.side]}。"
    spot = english._SPOTS[sight.level, sight.side]
    return (
        question,
        f"{english.upper(english.definite(sight))} {'are' if sight.count > 1 else 'is'} {spot} of the picture.",
    )


def _count(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, _COUNT, sight, language)
    if language == "zh":
        measure = sight.thing.measure if sight.thing else "个"
        return question, f"我数出{chinese._NUMBERS[sight.count]}{measure}。"
    if sight.count == 1:
        return question, "I count one."
    return question, f"I count {english._NUMBERS[sight.count]}."


def _setting(sight: Sight, rng: random.Random, language: Language) -> Pair:
    return _fill(rng, _SETTING, sight, language), _SETTING_WORDS[sight.setting][language == "zh"]


def _light(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, _LIGHT, sight, language)
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
    return _fill(rng, _SHARP, sight, language), text[language == "zh"]


def _part(sight: Sight, rng: random.Random, language: Language) -> Pair:
    layout = sight.facts.layout
    share, en, zh = rng.choice(
        ((layout.sky, "sky", "天空"), (layout.water, "water", "水"), (layout.greenery, "greenery", "绿色植物"))
    )
    question = rng.choice(_PARTS[language]).format(part=zh if language == "zh" else en)
    if share >= 0.12:
        return question, f"有，部分画面像{zh}。" if language == "zh" else f"Yes, part of it looks like {en}."
    return question, f"我没有看到{zh}。" if language == "zh" else f"I do not see any {en}."


def _describe(sight: Sight, rng: random.Random, language: Language) -> Pair:
    text = chinese.caption(sight, rng) if language == "zh" else english.caption(sight, rng)
    return rng.choice(_DESCRIBE[language]), text


def _unknown(sight: Sight, rng: random.Random, language: Language) -> Pair:
    question = _fill(rng, _UNKNOWN, sight, language)
    return question, "这从图片上看不出来。" if language == "zh" else "I cannot tell that from the picture."


def _there(sight: Sight, rng: random.Random, language: Language, others: list[Thing]) -> Pair:
    """Whether a named thing is there: half of the time the subject, else something else."""
    named = sight.thing is not None and sight.sureness != "unsure"
    present = named and rng.random() < 0.5
    thing = sight.thing if present and sight.thing is not None else rng.choice(others)
    if named and sight.thing is not None and thing.en == sight.thing.en:
        present = True
    if language == "zh":
        question = rng.choice(_THERE["zh"]).format(noun=thing.zh)
        if present:
            return question, f"是的，我看到{chinese.phrase(sight)}。"
        rest = f"我看到的是{chinese.phrase(sight)}。" if sight.thing else "我不确定画面里是什么。"
        return question, f"我没有看到{thing.zh}。{rest}"
    one = english.with_article(thing.en) if not thing.plural else f"any {thing.en}"
    question = rng.choice(_THERE["en"]).format(a=one)
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
