"""Every word that a text can need: all names, and whatever a great many random texts use."""

import itertools
import random
from typing import Any

from contracts.describe import Language
from training.vl.pictures.concepts import Concept
from training.vl.texts import asking, chinese, english
from training.vl.texts.sight import Sight, Thing, record_of
from training.vl.texts.truths import thing_of
from vl_service.embedded.model.tokens import SPECIALS, pieces_of
from vl_service.embedded.vision.colours import ColourShare, known_colours
from vl_service.embedded.vision.facts import ImageFacts
from vl_service.embedded.vision.kinds import rank_names, vocabulary, with_article
from vl_service.embedded.vision.layout import Layout

PROFILES = ("embedded", "turbowan", "wan2.1", "wan2.2", "i2vgen-xl")
TEXTS, UNNAMED = 3000, 200


def class_things() -> list[Thing]:
    """Every name that the tower can lead to: each class, each kind and each group."""
    import numpy as np

    words = vocabulary()
    found = []
    for number in range(len(words.class_en)):
        probabilities = np.zeros(1000, np.float32)
        probabilities[number] = 1
        name = rank_names(probabilities)[0]
        for kind_name in (name.definite("zh"), name.kind.zh):
            group = words.groups[name.kind.group]
            first, _, rest = name.en.partition(" ")
            noun = rest if first in ("a", "an", "some", "the") else name.en
            found += [
                Thing(
                    en=noun, zh=kind_name, kind_en=group.en, kind_zh=group.zh, measure=name.zh[1], group=name.kind.group
                ),
                Thing(
                    en=name.kind.en,
                    zh=kind_name,
                    kind_en=group.en,
                    kind_zh=group.zh,
                    measure=name.kind.measure,
                    group=name.kind.group,
                ),
            ]
    return list(dict.fromkeys(found))


def _random_facts(rng: random.Random) -> ImageFacts:
    colours = list(known_colours())
    return ImageFacts(
        width=320,
        height=320,
        palette=tuple(ColourShare(name=name, share=0.3) for name in rng.sample(colours, 3)),
        brightness=rng.random(),
        contrast=rng.random(),
        colourfulness=rng.random() * 0.3,
        warmth=rng.uniform(-0.3, 0.3),
        sharpness=rng.random() * 0.4,
        layout=Layout(
            horizon=None,
            detail_x=0.5,
            detail_y=0.5,
            detail_area=0.5,
            sky=rng.random() * 0.3,
            greenery=rng.random() * 0.5,
            water=rng.random() * 0.3,
            backdrop=rng.choice(colours) if rng.random() < 0.3 else None,
        ),
    )


def random_sight(thing: Thing | None, rng: random.Random) -> Sight:
    """A sight of the thing with everything else at random."""
    return Sight(
        thing=thing,
        sureness=rng.choice(("sure", "likely", "unsure")) if thing else "unsure",
        count=rng.randrange(1, 5),
        colour=rng.choice(list(known_colours())),
        x=rng.random(),
        y=rng.random(),
        extent=rng.random(),
        setting=rng.choice(("indoors", "outdoors", "under water", "unclear")),
        facts=_random_facts(rng),
        aspect=rng.uniform(0.5, 2),
    )


def vocabulary_pieces(concepts: list[Concept]) -> list[str]:
    """The pieces, markers and letters left out, in a fixed order."""
    rng, texts = random.Random(0), []
    things: list[Thing | None] = [*(thing_of(concept) for concept in concepts), *class_things()]
    others = [thing for thing in things if thing is not None]
    for thing in others:
        plain = {
            "en": [
                thing.en,
                english.plural(thing.en),
                with_article(thing.en),
                thing.kind_en,
                english.plural(thing.kind_en),
            ],
            "zh": [thing.zh, thing.measure, thing.kind_zh],
        }
        texts += [*plain["en"], *plain["zh"]]
    writers: tuple[tuple[Any, Language], ...] = ((english, "en"), (chinese, "zh"))
    unnamed = [None] * UNNAMED  # what is said of nothing in particular has words of its own
    for thing in itertools.islice(itertools.cycle([*unnamed, *things]), TEXTS + UNNAMED):
        sight = random_sight(thing, rng)
        texts += record_of(sight)
        for writer, language in writers:
            texts += [writer.caption(sight, rng), *writer.edits(sight, rng), *asking.ask(sight, rng, language, others)]
            texts += [text for profile in PROFILES for _, text in writer.prompt(sight, profile, rng)]
    pieces = sorted({piece for text in texts for piece in pieces_of(text)})
    return [piece for piece in pieces if piece not in SPECIALS]
