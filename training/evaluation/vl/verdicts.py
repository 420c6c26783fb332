"""Whether a text about a picture says what is true of it: names, colours, places, numbers, language, repetition."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from contracts.describe import Language
from training.vl.pictures.compose import Truth
from training.vl.pictures.concepts import Concept
from training.vl.texts.english import plural
from vl_service.embedded.vision.colours import known_colours
from vl_service.embedded.vision.kinds import vocabulary
from vl_service.prompts.polish import in_language, length, sentences
from vl_service.prompts.profiles import Profile

Words = dict[Language, frozenset[str]]
BROADER = Path(__file__).parent / "broader.toml"

_UNSURE = {
    "en": re.compile(r"\bunsure\b|\bnot (?:quite |entirely )?sure\b|\bcan(?:no|')t (?:tell|name|say)\b|\buncertain\b|"
                     r"\bhard to (?:tell|say)\b"),
    "zh": re.compile(r"不确定|看不出|说不出|无法(?:判断|确定)|不清楚|难以判断"),
}
_PERHAPS = {"en": re.compile(r"\bperhaps\b|\bpossibly\b|\bmaybe\b"), "zh": re.compile("可能|也许|或许")}
_SOME_KIND = {"en": re.compile(r"\b(?:some|a) kind of ([a-z ]+)"), "zh": re.compile(r"某种([一-鿿]+)")}
_PLACES: dict[Language, dict[str, re.Pattern[str]]] = {
    "en": {
        "left": re.compile(r"\bleft\b"), "right": re.compile(r"\bright\b"),
        "centre": re.compile(r"\b(?:centre|center|middle)\b"), "top": re.compile(r"\b(?:upper|top)\b"),
        "bottom": re.compile(r"\b(?:lower|bottom)\b"), "large": re.compile(r"\bfill(?:s|ing)?\b"),
    },
    "zh": {
        "left": re.compile("左"), "right": re.compile("右"), "centre": re.compile("中央|中间|中心|正中"),
        "top": re.compile("上方|上半|上部|顶部"), "bottom": re.compile("下方|下半|下部|底部"),
        "large": re.compile("占满|充满|占据"),
    },
}
# Where the sky, the water or a level line lies says nothing about the subject.
_SURROUNDINGS = {
    "en": re.compile(r"\b(?:upper|middle|lower) third\b"),
    "zh": re.compile(r"上方(?:像是|是)?开阔的天空|下方(?:像是|是|的)?水面|横贯画面[上中下]部"),
}
_NUMBERS: dict[Language, dict[int, re.Pattern[str]]] = {
    "en": {n: re.compile(rf"\b(?:{word}|{n})\b") for n, word in enumerate(
        ("(?<!which )one|single", "two", "three", "four"), start=1)},
    "zh": {n: re.compile(rf"{word}|{n}") for n, word in enumerate(
        ("一(?=[个只朵本辆条张件块片颗头匹架艘座盏把顶双台枚根面支部棵株位])", "两|二", "三", "四"), start=1)},
}
_SETTINGS = {
    "indoors": {"en": re.compile(r"\bindoors?\b|\binside\b"), "zh": re.compile("室内|屋里")},
    "outdoors": {"en": re.compile(r"\boutdoors?\b|\boutside\b"), "zh": re.compile("室外|户外|屋外")},
}
# The least that each profile's own guide asks for: words in English, characters in Chinese.
LEAST_LENGTH: dict[str, dict[Language, int]] = {
    "embedded": {"en": 4, "zh": 6},
    "turbowan": {"en": 80},
    "wan2.1": {"en": 60, "zh": 80},
    "wan2.2": {"en": 8, "zh": 12},
    "i2vgen-xl": {"en": 8},
}
CAPTION_LENGTH: dict[Language, tuple[int, int]] = {"en": (5, 120), "zh": (8, 240)}
MOST_COLOURS = 4  # who lists them all has named none
_AS_WELL = {"cup of espresso": ("cup of coffee",)}
_RUN = {"en": 9, "zh": 18}  # words or characters in a row that no text says twice; a list of colours may be shorter


def _mentions(text: str, words: Iterable[str], language: Language) -> bool:
    if language == "zh":
        return any(word in text for word in words)
    forms = {re.escape(form.lower()) for word in words for form in (word, plural(word))}
    return bool(forms) and re.search(rf"\b(?:{'|'.join(forms)})\b", text.lower()) is not None


def names_it(text: str, words: Words, language: Language) -> bool:
    """Whether one of the words for the subject is said; English in singular or plural."""
    return _mentions(text, words[language], language)


def words_of_class(number: int) -> Words:
    """What an ImageNet class may be called: its own name, another for the same, or its kind's."""
    table = vocabulary()
    kind = table.kind_of[number]
    chinese = table.class_zh.get(number, kind.zh)
    name = re.sub("^(?:an?|some) ", "", table.class_en[number])
    return {"en": frozenset({name, *_AS_WELL.get(name, ()), kind.en}),
            "zh": frozenset({chinese[2:] if chinese.startswith("一") else chinese, kind.zh})}


def words_of_concept(concept: Concept) -> Words:
    """What a cut-out's thing may be called: its name, or that of a class of the ImageNet kind of the same name."""
    table = vocabulary()
    english, chinese = {concept.en}, {concept.zh}
    for kind in table.kinds:
        if kind.en == concept.en:
            english |= {table.class_en[number] for number in kind.classes}
            chinese |= {kind.zh}
    return {"en": frozenset(english), "zh": frozenset(chinese)}


def kind_words(concept: Concept) -> Words:
    """What the broader kind of a cut-out's thing may be called."""
    group = vocabulary().groups[concept.group]
    return {"en": frozenset({concept.kind_en, group.en}), "zh": frozenset({concept.kind_zh, group.zh})}


@cache
def _broader() -> dict[str, dict[Language, list[str]]]:
    return tomllib.loads(BROADER.read_text("utf-8"))


def broader_words(concept: Concept) -> Words:
    """Names that are true of a thing of no training picture: a lab coat is a coat."""
    words = _broader().get(concept.en, {})
    return {language: frozenset(words.get(language, ())) for language in ("en", "zh")}


def invents_nothing(text: str, concept: Concept, language: Language) -> bool:
    """Of a thing of no known kind: it is named after all, or more broadly, or the text says that it is unsure.

    Only the first sentence counts; later ones speak of the surroundings. "Some kind of" a wrong kind is an invention.
    """
    first = (sentences(text) or [""])[0].lower()
    if any(names_it(first, words(concept), language) for words in (words_of_concept, kind_words, broader_words)):
        return True
    return bool(_UNSURE[language].search(first)) and not _SOME_KIND[language].search(first)


def only_guesses(text: str, language: Language) -> bool:
    """Whether the first sentence names the subject as what it may be."""
    return _PERHAPS[language].search((sentences(text) or [""])[0].lower()) is not None


@cache
def _colour_words(language: Language) -> tuple[re.Pattern[str], dict[str, str]]:
    """All colour names, longest first, and the family ("dark blue" → "blue") of each."""
    families = {(zh if language == "zh" else en): en.split()[-1] for en, zh in known_colours().items()}
    longest = sorted(map(re.escape, families), key=len, reverse=True)
    edge = "" if language == "zh" else r"\b"
    return re.compile(f"{edge}(?:{'|'.join(longest)}){edge}"), families


def colours_said(text: str, language: Language) -> set[str]:
    """Families of the colours that a text names, in English; black and white for a picture without colour."""
    pattern, families = _colour_words(language)
    said = {families[word] for word in pattern.findall(text.lower())}
    return said | ({"black", "white", "grey"} if re.search("黑白|black.and.white", text.lower()) else set())


def says_colour(text: str, families: set[str], language: Language) -> bool:
    """Whether one of the families is said, and not nearly every colour there is."""
    said = colours_said(text, language)
    return bool(said & families) and len(said) <= MOST_COLOURS


def says_place(text: str, truth: Truth, language: Language) -> bool:
    """Whether the text has a word that is true of the subject's place, and none that is plainly false."""
    bare = _SURROUNDINGS[language].sub("", text.lower())
    said = {place for place, pattern in _PLACES[language].items() if pattern.search(bare)}
    x, y, extent = truth.x, truth.y, truth.extent
    true = {"left": x < 0.46, "right": x > 0.54, "centre": 0.34 < x < 0.66 and 0.3 < y < 0.7, "top": y < 0.42,
            "bottom": y > 0.58, "large": extent > 0.35}
    false = {"left": x > 0.5, "right": x < 0.5, "centre": not (0.28 < x < 0.72 and 0.24 < y < 0.76), "top": y > 0.5,
             "bottom": y < 0.5, "large": extent < 0.25}
    return any(true[place] for place in said) and not any(false[place] for place in said)


def says_count(text: str, count: int, language: Language) -> bool:
    """Whether this number from one to four is said, and no other of them."""
    return {n for n, pattern in _NUMBERS[language].items() if pattern.search(text.lower())} == {count}


def says_setting(text: str, setting: str, language: Language) -> bool:
    """Whether indoors or outdoors is said as it is, and not the other or both."""
    return {name for name, patterns in _SETTINGS.items() if patterns[language].search(text.lower())} == {setting}


def right_language(text: str, language: Language) -> bool:
    """English without a Chinese character, or mostly Chinese (names may stand in brackets)."""
    return in_language(text, language) and (language == "zh" or re.search("[一-鿿]", text) is None)


def prompt_bounds(profile: Profile, language: Language) -> tuple[int, int]:
    """From the guide's least to the profile's limit."""
    return LEAST_LENGTH[profile.name][language], profile.max_chars if language == "zh" else profile.max_words


def right_length(text: str, bounds: tuple[int, int], language: Language) -> bool:
    """Within least and most, counted in words or characters."""
    return bounds[0] <= length(text, language) <= bounds[1]


def repeats(text: str, language: Language) -> bool:
    """Whether a sentence, a long run of words, or a word right after itself comes twice."""
    said = [re.sub(r"\W+", "", sentence.lower()) for sentence in sentences(text)]
    if len(set(said)) < len(said):
        return True
    if language == "zh":
        units = re.findall(r"[一-鿿0-9]", text)
        stutter = re.search(r"([一-鿿]{2,})\1\1", text) is not None
    else:
        units = re.findall(r"[a-z0-9']+", text.lower())
        stutter = re.search(r"\b([a-z']+) \1\b", text.lower()) is not None
    size = _RUN[language]
    runs = Counter(tuple(units[at:at + size]) for at in range(len(units) - size + 1))
    return stutter or any(number > 1 for number in runs.values())
