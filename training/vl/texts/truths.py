"""Truths and tower probabilities → sights that texts can be written about."""

import numpy as np
from numpy.typing import NDArray

from training.vl.pictures.compose import Truth
from training.vl.pictures.concepts import Concept
from training.vl.texts.sight import Sight, Sureness, Thing
from vl_service.embedded.vision.colours import known_colours
from vl_service.embedded.vision.facts import ImageFacts
from vl_service.embedded.vision.kinds import LIKELY, SURE, Name, group_probability, rank_names, vocabulary

GROUP_SURE = 0.5
CELLS_START = 8  # where the colours of the 3x3 grid lie among the fact slots


def thing_of(concept: Concept) -> Thing:
    """A concept as texts name it."""
    return Thing(
        en=concept.en,
        zh=concept.zh,
        kind_en=concept.kind_en,
        kind_zh=concept.kind_zh,
        measure=concept.measure,
        group=concept.group,
        plural=concept.plural,
    )


def sight_of_cutout(concept: Concept, truth: Truth, facts: ImageFacts) -> Sight:
    """A composed picture: known things by name, strange ones by their kind alone."""
    return Sight(
        thing=thing_of(concept),
        sureness="sure" if concept.role == "known" else "unsure",
        count=truth.count,
        colour=truth.colour,
        x=truth.x,
        y=truth.y,
        extent=truth.extent,
        setting=truth.setting,
        facts=facts,
        aspect=truth.aspect,
    )


def _named(name: Name) -> Thing:
    group = vocabulary().groups[name.kind.group]
    first, _, rest = name.en.partition(" ")
    return Thing(
        en=rest if first in ("a", "an", "some", "the") else name.en,
        zh=name.definite("zh"),
        kind_en=group.en,
        kind_zh=group.zh,
        measure=name.zh[1],
        group=name.kind.group,
        plural=first == "some",
    )


def sight_of_tower(
    probabilities_K: NDArray[np.float32],
    truth: Truth,
    facts: ImageFacts,
    slots: list[int],
    place: tuple[float, float, float] | None,
) -> Sight:
    """A picture whose subject is what the tower says; `place` where it was put, else where the detail is."""
    names = rank_names(probabilities_K)
    first, clear = names[0], names[0].probability > 1.4 * names[1].probability
    sureness: Sureness = (
        "sure"
        if first.probability >= SURE and clear
        else "likely"
        if first.probability >= LIKELY and clear
        else "unsure"
    )
    thing: Thing | None = _named(first)
    if sureness == "unsure" and group_probability(probabilities_K, first.kind.group) < GROUP_SURE:
        thing = None
    layout = facts.layout
    x, y, extent = place or (layout.detail_x, layout.detail_y, layout.detail_area)
    setting = truth.setting
    if setting == "unclear" and sureness != "unsure":
        setting = {"in": "indoors", "out": "outdoors", "water": "outdoors"}.get(first.kind.place, "unclear")
    cell = CELLS_START + min(2, int(y * 3)) * 3 + min(2, int(x * 3))
    return Sight(
        thing=thing,
        sureness=sureness,
        count=1,
        colour=list(known_colours())[slots[cell]],
        x=x,
        y=y,
        extent=extent,
        setting=setting,
        facts=facts,
        aspect=truth.aspect,
    )
