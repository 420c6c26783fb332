"""The scene record: what was seen and measured, settled once and frozen, from which every text is written."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vl_service.facts import PictureFacts
from vl_service.kinds import LIKELY, SURE, Group, Name, group_probability, rank_names, vocabulary
from vl_service.tower import Sighting

Sureness = Literal["sure", "likely", "unsure"]
Side = Literal["left", "centre", "right"]
Level = Literal["top", "middle", "bottom"]
Setting = Literal["indoors", "outdoors", "unclear"]

PERHAPS = 0.08  # below this a guess is no better than silence: a thousand classes share the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture, understood as far as it goes."""

    facts: PictureFacts
    sureness: Sureness
    names: tuple[Name, ...]
    """Most probable first; never empty."""
    group: str
    """Key of the group of the first name."""
    group_is_sure: bool
    """Whether the group holds even where the name does not."""
    x: float
    y: float
    extent: float
    """Centre of the subject in 0..1 from the top left, and the share of the picture it covers."""
    setting: Setting

    @property
    def confidence(self) -> float:
        """Probability of the first name."""
        return self.names[0].probability

    @property
    def subject(self) -> Name | None:
        """What is named without a "perhaps"; `None` when unsure."""
        return None if self.sureness == "unsure" else self.names[0]

    @property
    def group_words(self) -> Group:
        """Words for the group of the first name."""
        return vocabulary().groups[self.group]

    @property
    def guesses(self) -> tuple[Name, ...]:
        """What an unsure picture may show, at most two."""
        return tuple(name for name in self.names[:2] if name.probability >= PERHAPS)

    @property
    def side(self) -> Side:
        """Where the subject is, from left to right."""
        return "left" if self.x < 0.4 else "right" if self.x > 0.6 else "centre"

    @property
    def level(self) -> Level:
        """Where the subject is, from top to bottom."""
        return "top" if self.y < 0.36 else "bottom" if self.y > 0.64 else "middle"

    @property
    def shape(self) -> Literal["landscape", "portrait", "square"]:
        """Shape of the frame."""
        ratio = self.facts.width / self.facts.height
        return "landscape" if ratio > 1.15 else "portrait" if ratio < 0.87 else "square"


def build_scene(facts: PictureFacts, sighting: Sighting) -> Scene:
    """Settle what the picture shows."""
    names = rank_names(sighting.probabilities)
    first, second = names[0], names[1]
    clear = first.probability > 1.5 * second.probability
    sureness: Sureness = (
        "sure" if first.probability >= SURE and clear else "likely" if first.probability >= LIKELY else "unsure")
    x, y, extent = _subject_place(sighting, first, facts, trust_tower=sureness != "unsure")
    return Scene(
        facts=facts, sureness=sureness, names=tuple(names[:5]), group=first.kind.group,
        group_is_sure=group_probability(sighting.probabilities, first.kind.group) >= SURE,
        x=x, y=y, extent=extent, setting=_setting(names, facts),
    )


def _subject_place(
    sighting: Sighting, name: Name, facts: PictureFacts, *, trust_tower: bool
) -> tuple[float, float, float]:
    if not trust_tower:
        return facts.layout.detail_x, facts.layout.detail_y, facts.layout.detail_area
    numbers = list(name.kind.classes)
    weights = sighting.probabilities[numbers]
    heat_HW: NDArray[np.float32] = np.tensordot(weights / weights.sum(), sighting.evidence[numbers], axes=1)
    heat_HW = np.maximum(heat_HW - np.median(heat_HW), 0)
    if heat_HW.max() <= 0:
        return facts.layout.detail_x, facts.layout.detail_y, facts.layout.detail_area
    seen = heat_HW * (heat_HW > 0.25 * heat_HW.max())
    centres = (np.arange(len(seen)) + 0.5) / len(seen)
    return (
        float((seen.sum(0) * centres).sum() / seen.sum()), float((seen.sum(1) * centres).sum() / seen.sum()),
        float((seen > 0).mean()),
    )


def _setting(names: list[Name], facts: PictureFacts) -> Setting:
    """Indoors or outdoors, only where what is seen and what is measured do not disagree."""
    indoors = sum(name.probability for name in names if name.kind.place == "in")
    outdoors = sum(name.probability for name in names if name.kind.place in ("out", "water"))
    layout = facts.layout
    # green alone may be a wall or a drawing; a sky over a horizon is hardly anything else
    outdoors += 2 * (layout.sky + layout.water + min(0.2, layout.greenery))
    outdoors += 0.25 if layout.sky > 0.1 and layout.horizon is not None else 0
    if outdoors > 0.45 and outdoors > 2 * indoors:
        return "outdoors"
    if indoors > 0.45 and indoors > 2 * outdoors:
        return "indoors"
    return "unclear"


def facts_as_text(scene: Scene) -> dict[str, str]:
    """The record in short strings for `DescribeResponse.facts`."""
    facts, layout = scene.facts, scene.facts.layout
    seen = ", ".join(f"{name.en} {name.probability:.2f}" for name in scene.names[:3])
    return {
        "size": f"{facts.width}x{facts.height}", "seen": seen, "sureness": scene.sureness,
        "palette": ", ".join(f"{colour.name} {colour.share:.2f}" for colour in facts.palette),
        "brightness": f"{facts.brightness:.2f}", "contrast": f"{facts.contrast:.2f}",
        "colourfulness": f"{facts.colourfulness:.2f}", "warmth": f"{facts.warmth:.2f}",
        "sharpness": f"{facts.sharpness:.2f}",
        "subject": f"x {scene.x:.2f}, y {scene.y:.2f}, extent {scene.extent:.2f}",
        "horizon": "none" if layout.horizon is None else f"{layout.horizon:.2f}",
        "backdrop": layout.backdrop or "none", "setting": scene.setting,
        "sky": f"{layout.sky:.2f}", "water": f"{layout.water:.2f}", "greenery": f"{layout.greenery:.2f}",
    }
