"""Colours in a text as they were measured: the decoder reads them right nearly always, and a measurement always."""

import re
from functools import cache

from contracts.describe import Language
from vl_service.embedded.vision.colours import colour_name, known_colours
from vl_service.embedded.vision.facts import ImageFacts

GREY = 0.03  # mean chroma under which there is no colour to speak of, as in training


def with_measured_colours(text: str, facts: ImageFacts, language: Language) -> str:
    """The text with each list of two or more colours replaced by as many of the picture's main colours.

    A picture without colour is "black and white", whatever its greys.
    """
    if facts.colourfulness < GREY:
        return text
    names = main_colours(facts)

    def measured(match: re.Match[str]) -> str:
        several = len(_colour(language).findall(match.group()))
        return listed([colour_name(name, language) for name in names[:several]], language)

    return _lists(language).sub(measured, text)


def main_colours(facts: ImageFacts) -> list[str]:
    """Names of the main colours, one of a family: "dark blue and blue" says little more than the larger of the two."""
    families: dict[str, str] = {}
    for colour in facts.palette:
        families.setdefault(colour.name.split()[-1], colour.name)
    return list(families.values())


@cache
def _colour(language: Language) -> re.Pattern[str]:
    names = [zh if language == "zh" else en for en, zh in known_colours().items()]
    edge = "" if language == "zh" else r"\b"
    return re.compile(f"{edge}(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))}){edge}")


@cache
def _lists(language: Language) -> re.Pattern[str]:
    one = _colour(language).pattern
    return re.compile(f"{one}(?:、{one})*和{one}" if language == "zh" else f"{one}(?:, {one})* and {one}")


def listed(words: list[str], language: Language) -> str:
    """Words with commas and an "and"."""
    if len(words) < 2:
        return "".join(words)
    joiner, last = ("、", "和") if language == "zh" else (", ", " and ")
    return joiner.join(words[:-1]) + last + words[-1]
