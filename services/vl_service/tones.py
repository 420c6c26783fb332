"""Measured colour, light and place in the words of each language."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from contracts.describe import Language
from vl_service.colours import colour_name
from vl_service.facts import PictureFacts
from vl_service.scene import Level, Scene, Side

Measure = Literal["brightness", "contrast", "colourfulness", "warmth", "sharpness"]

_PLACES_EN: dict[tuple[Level, Side], str] = {
    ("top", "left"): "in the upper left", ("top", "centre"): "in the upper half",
    ("top", "right"): "in the upper right",
    ("middle", "left"): "on the left", ("middle", "centre"): "in the centre", ("middle", "right"): "on the right",
    ("bottom", "left"): "in the lower left", ("bottom", "centre"): "in the lower half",
    ("bottom", "right"): "in the lower right",
}
_PLACES_ZH: dict[tuple[Level, Side], str] = {
    ("top", "left"): "左上方", ("top", "centre"): "上方", ("top", "right"): "右上方", ("middle", "left"): "左侧",
    ("middle", "centre"): "中央", ("middle", "right"): "右侧", ("bottom", "left"): "左下方",
    ("bottom", "centre"): "下方", ("bottom", "right"): "右下方",
}


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("vl_service") / "words" / "tones.toml").read_text("utf-8"))


def tone(facts: PictureFacts, measure: Measure, language: Language) -> str:
    """The word for one measured value, such as "dark" or "偏暗"."""
    value = float(getattr(facts, measure))
    return next(row[language] for row in _table()[measure] if value < row["below"])


def light(facts: PictureFacts, language: Language) -> str:
    """How it is lit: "in dim light", "光线昏暗"."""
    return next(row[f"light_{language}"] for row in _table()["brightness"] if facts.brightness < row["below"])


def mood_sentence(instruction: str, language: Language) -> str:
    """A sentence on the mood that an instruction asks for, or nothing."""
    lowered = instruction.lower()
    return next((row[language] for row in _table()["mood"] if re.search(row["find"], lowered)), "")


def listed(words: list[str], language: Language, *, last: str = "and") -> str:
    """"a, b and c"; in Chinese 、 and 和 (or 或)."""
    if len(words) < 2:
        return "".join(words)
    if language == "zh":
        return "、".join(words[:-1]) + ("和" if last == "and" else "或") + words[-1]
    return ", ".join(words[:-1]) + f" {last} {words[-1]}"


def is_grey(facts: PictureFacts) -> bool:
    """Whether the picture has no colour to speak of."""
    return facts.colourfulness < 0.03


def colours(facts: PictureFacts, language: Language, *, at_most: int = 3) -> str:
    """The main colours: "brown and beige"."""
    families: dict[str, str] = {}  # "dark blue and blue" says little more than the larger of the two
    for colour in facts.palette:
        families.setdefault(colour.name.split()[-1], colour.name)
    return listed([colour_name(name, language) for name in list(families.values())[:at_most]], language)


def place(scene: Scene, language: Language) -> str:
    """Where the subject is: "on the left of the picture", "画面左侧"."""
    key = (scene.level, scene.side)
    if language == "zh":
        return f"画面{_PLACES_ZH[key]}"
    return f"{_PLACES_EN[key]} of the picture"


def surroundings(scene: Scene, language: Language) -> list[str]:
    """Sentences on backdrop, sky, water, green and horizon, where there are any; no surer than a measurement is."""
    layout, chinese = scene.facts.layout, language == "zh"
    found: list[str] = []
    if layout.backdrop is not None:
        name = colour_name(layout.backdrop, language)
        found.append(f"背景是纯净的{name}。" if chinese else f"The background is plain {name}.")
    if layout.sky >= 0.12:
        found.append("上方像是开阔的天空。" if chinese else "Above lies what looks like open sky.")
    if layout.water >= 0.12:
        found.append("下方像是水面。" if chinese else "Below lies what looks like water.")
    if layout.greenery >= 0.25 and scene.setting == "outdoors":
        found.append("四周有大片绿色植物。" if chinese else "There is much green around.")
    if layout.horizon is not None and layout.sky < 0.12 and layout.backdrop is None:
        third = ("上部", "中部", "下部")[min(2, int(layout.horizon * 3))]
        third_en = ("upper", "middle", "lower")[min(2, int(layout.horizon * 3))]
        found.append(f"一条水平线横贯画面{third}。" if chinese
                     else f"A level line crosses the {third_en} third of the picture.")
    return found
