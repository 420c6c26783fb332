"""What is true of one training picture, in the form that the writers of texts need."""

from dataclasses import dataclass
from typing import Literal

from vl_service.embedded.vision.facts import ImageFacts

Sureness = Literal["sure", "likely", "unsure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A nameable thing. `en` has no article, `zh` no measure word; empty names are not known."""

    en: str
    zh: str
    kind_en: str
    kind_zh: str
    measure: str
    group: str
    plural: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One picture: the subject, where and how it is, and what was measured."""

    thing: Thing | None
    """`None` where nothing can be named, not even its kind."""
    sureness: Sureness
    count: int
    colour: str
    x: float
    y: float
    extent: float
    setting: str
    facts: ImageFacts
    aspect: float

    @property
    def side(self) -> str:
        """left, centre or right."""
        return "left" if self.x < 0.4 else "right" if self.x > 0.6 else "centre"

    @property
    def level(self) -> str:
        """top, middle or bottom."""
        return "top" if self.y < 0.36 else "bottom" if self.y > 0.64 else "middle"

    @property
    def size(self) -> str:
        """large, medium or small in the frame."""
        return "large" if self.extent > 0.45 else "medium" if self.extent > 0.12 else "small"

    @property
    def light(self) -> str:
        """One word for the brightness."""
        value = self.facts.brightness
        return "very dark" if value < 0.15 else "dim" if value < 0.33 else "even" if value < 0.66 else "bright"

    @property
    def warmth(self) -> str:
        """warm, cool or empty."""
        value = self.facts.warmth
        return "warm" if value >= 0.1 else "cool" if value < -0.06 else ""

    @property
    def grey(self) -> bool:
        """Whether the picture has no colour to speak of."""
        return self.facts.colourfulness < 0.03

    @property
    def shape(self) -> str:
        """landscape, portrait or square."""
        return "landscape" if self.aspect > 1.15 else "portrait" if self.aspect < 0.87 else "square"

    def palette(self, at_most: int) -> list[str]:
        """Names of the main colours, one of a family."""
        families: dict[str, str] = {}
        for colour in self.facts.palette:
            families.setdefault(colour.name.split()[-1], colour.name)
        return list(families.values())[:at_most]


def record_of(sight: Sight) -> list[str]:
    """The record that the decoder says first, from which it writes every text: markers and plain English words."""
    named = sight.thing is not None and sight.sureness != "unsure"
    record = [f"<{sight.sureness}>"]
    if named and sight.thing is not None:
        record += sight.thing.en.split()
    record += ["<kind>", *(sight.thing.kind_en if sight.thing else "unknown").split()]
    record += ["<count>", str(sight.count)]
    record += ["<colour>", *(sight.colour or "unknown").split()]
    record += ["<place>", sight.level, sight.side, "<size>", sight.size, "<setting>", *sight.setting.split(), "<end>"]
    return record
