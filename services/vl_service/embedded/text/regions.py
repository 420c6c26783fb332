"""What colour another part of the picture has than its subject, told from what was measured there."""

from contracts.describe import Language
from vl_service.embedded.model.record import Record
from vl_service.embedded.text.measured import listed
from vl_service.embedded.vision.colours import ColourShare, colour_name
from vl_service.embedded.vision.facts import ImageFacts

MOSTLY = 0.6  # the share that a region's first colour, or its first two, must have to be said of it
_WORDS: dict[str, dict[Language, str]] = {
    "upper": {"en": "The upper part of the picture", "zh": "画面上部"},
    "lower": {"en": "The lower part of the picture", "zh": "画面下部"},
    "left": {"en": "The left side of the picture", "zh": "画面左侧"},
    "right": {"en": "The right side of the picture", "zh": "画面右侧"},
    "upper left": {"en": "The upper left corner of the picture", "zh": "画面左上角"},
    "upper right": {"en": "The upper right corner of the picture", "zh": "画面右上角"},
    "lower left": {"en": "The lower left corner of the picture", "zh": "画面左下角"},
    "lower right": {"en": "The lower right corner of the picture", "zh": "画面右下角"},
    "middle": {"en": "The middle of the picture", "zh": "画面中间"},
    "edges": {"en": "Towards its edges the picture", "zh": "画面四周"},
    "sky": {"en": "What looks like sky", "zh": "看起来像天空的部分"},
    "water": {"en": "What looks like water", "zh": "看起来像水的部分"},
    "greenery": {"en": "What looks like greenery", "zh": "看起来像植物的部分"},
}


def colour_there(part: str, facts: ImageFacts, record: Record, language: Language) -> str | None:
    """A sentence on the colour of a region, the background or the ground; `None` where nothing was measured of it.

    Where the subject may fill what is asked for, its own colour would be told as that of something else.
    """
    if part == "background":
        around = facts.layout.backdrop is not None or record.size != "large"
        return _sentence("edges", facts, language) if around else None
    if part == "ground":
        free = record.size != "large" and record.level != "bottom"
        return _sentence("lower", facts, language) if free else None
    return _sentence(part, facts, language)


def _sentence(region: str, facts: ImageFacts, language: Language) -> str | None:
    colours = facts.regions.get(region)
    if not colours:
        return None
    there = _WORDS[region][language]
    for number in (1, 2):
        if sum(colour.share for colour in colours[:number]) >= MOSTLY:
            said = _listed(colours[:number], language)
            return f"{there}大多是{said}。" if language == "zh" else f"{there} is mostly {said}."
    said = _listed(colours, language)
    return f"{there}颜色很杂，其中有{said}。" if language == "zh" else f"{there} has many colours, {said} among them."


def _listed(colours: tuple[ColourShare, ...], language: Language) -> str:
    return listed([colour_name(colour.name, language) for colour in colours], language)
