"""Chooses from which probability on the decoder names a thing surely, or at all, and writes it into config.json.

    PYTHONPATH=services:. python -m training.vl.thresholds --model models/vl     # three quarters of an hour

Pictures are composed as for training, of things that training showed: named ones, and strange ones, for which every
name is wrong. Each cut-out is turned, tinted or cut first, since the decoder knows the drawings themselves by heart.
A name is said at all from where it is right more often than wrong; a name surely, and a kind, from where they are right
nine times in ten.

Before that the branches must be right about what is drawn, nineteen times in twenty. They have not seen the drawings
that were kept back from them: those count as right where they are named. As many are drawings, kept back too, of things
that no name fits, and whatever these are named is wrong. Of both the kind may still be right. What is not named may be
guessed from where on the branches are right more often than wrong, if it is a thing that they know.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from training.evaluation.vl.verdicts import kind_words, names_it, words_of_concept
from training.vl.pictures.compose import SIDE, Stock, compose, load_stock
from training.vl.pictures.concepts import load_concepts
from training.vl.pictures.drawings import named_concepts, own_files
from training.vl.pictures.others import OfKind, as_concepts, load_others
from vl_service.embedded.checkpoint import CONFIG, load_generator
from vl_service.embedded.model.generator import Generator, views_of
from vl_service.embedded.model.observation import Thresholds
from vl_service.embedded.vision.detections import detect
from vl_service.embedded.vision.features import clarity, drawn_names, look, square_tensor
from vl_service.images import DecodedImage

SURELY_RIGHT = 0.9
PLAINLY_RIGHT = 0.95  # of what is drawn: kept-back drawings often resemble one that was taught, strangers seldom
NAMING, KINDS = (Thresholds(sure=least, likely=least, kind=0.0, drawn_kind=0.0, drawn=0.0, guess=1.1)
                 for least in (0.0, 1.1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """How probable the decoder found what it said of a picture, and whether that is right."""

    probability: float
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What the branches say of drawings that they see for the first time."""

    names: list[Named]
    kinds: list[Named]
    """Of the same pictures in the same order."""
    own: list[Named]
    """Those of the names that are of known things."""

    def nameless(self, drawn: float) -> list[Named]:
        """The kinds that are said: those of pictures whose name is not."""
        return [kind for name, kind in zip(self.names, self.kinds, strict=True) if name.probability < drawn]


def choose(names: Sequence[Named], kinds: Sequence[Named], fresh: Fresh) -> Thresholds:
    """Thresholds that serve these names, and these kinds said in their place, best."""
    likely, drawn = worth_saying(names), surely_right(fresh.names, PLAINLY_RIGHT)
    guessed = [name for name in fresh.own if name.probability < drawn]
    return Thresholds(sure=max(likely, surely_right(names)), likely=likely, kind=surely_right(kinds),
                      drawn_kind=surely_right(fresh.nameless(drawn), PLAINLY_RIGHT), drawn=drawn,
                      guess=worth_saying(guessed))


def surely_right(said: Sequence[Named], share: float = SURELY_RIGHT) -> float:
    """The least from where on this share of it is right."""
    ranked = sorted(said, key=lambda one: -one.probability)
    right = np.cumsum([one.right for one in ranked])
    good = np.nonzero(right / np.arange(1, len(ranked) + 1) >= share)[0]
    return _below(ranked, int(good[-1])) if len(good) else 1.0


def worth_saying(said: Sequence[Named]) -> float:
    """From where on as much as possible is right, less what is wrong."""
    ranked = sorted(said, key=lambda one: -one.probability)
    if not ranked:
        return 1.0
    right = np.cumsum([one.right for one in ranked])
    gain = 2 * right - np.arange(1, len(ranked) + 1)
    return _below(ranked, int(gain.argmax())) if gain.max() > 0 else 1.0


def _below(ranked: Sequence[Named], at: int) -> float:
    """Half way between the name that is still in and the next."""
    after = ranked[at + 1].probability if at + 1 < len(ranked) else 0.0
    return round((ranked[at].probability + after) / 2, 3)


def said_of_pictures(
    speaker: Generator, stock: Stock, count: int, seed: int, drawn: float
) -> tuple[list[Named], list[Named]]:
    """What is named on pictures of known and strange things, where clear enough, and which kinds without names."""
    rng = random.Random(seed)
    roles = {role: [at for at, concept in enumerate(stock.concepts) if concept.role == role]
             for role in ("known", "strange")}
    names: list[Named] = []
    kinds: list[Named] = []
    for turn in range(count):
        at = rng.choice(roles["strange" if turn % 3 == 2 else "known"])
        concept = stock.concepts[at]
        square, truth = compose(stock, rng, at, redrawn_share=1.0)
        width = round(SIDE * truth.aspect)
        seen = speaker.look(DecodedImage(rgb=square.resize((width, SIDE)), width=width, height=SIDE), _never)
        seen = replace(seen, marks=None)  # the decoder's own words
        named, kind = (speaker.settle(seen, thresholds, _never).record for thresholds in (NAMING, KINDS))
        if named.name and seen.clarity >= drawn:
            right = concept.role == "known" and names_it(named.name, words_of_concept(concept), "en")
            names.append(Named(probability=named.confidence, right=right))
        if kind.kind:
            kinds.append(Named(probability=kind.confidence, right=names_it(kind.kind, kind_words(concept), "en")))
    return names, kinds


@torch.inference_mode()
def drawn_for_the_first_time(speaker: Generator, stock: Stock, others: OfKind, count: int, seed: int) -> Fresh:
    """What the branches say of drawings kept back from them, in turn of a known thing and of one without a name."""
    rng = random.Random(seed)
    fresh = [replace(concept, files=tuple(sorted({*concept.files} - {*own_files(concept)})))
             for concept in stock.concepts]
    label_of = {at: label for label, at in enumerate(named_concepts(fresh))}
    known = [at for at, concept in enumerate(fresh) if concept.role == "known" and concept.files]
    strangers = as_concepts(others)
    nameless = [at for at, concept in enumerate(strangers, start=len(fresh)) for _ in concept.files]
    stock = replace(stock, concepts=(*fresh, *strangers))
    said = Fresh(names=[], kinds=[], own=[])
    for turn in range(2 * count):
        at = rng.choice(nameless if turn % 2 else known)
        square, truth = compose(stock, rng, at)
        squares = [square_tensor(view) for view in views_of(square)]
        views = look(speaker.tower, speaker.branches, torch.stack(squares), torch.full((len(squares),), truth.aspect))
        marks = detect(views, square, speaker.things)
        if marks is None:
            continue  # it was taken for a scene without drawings
        best = int(drawn_names(views.named_B2N).argmax())
        name = Named(probability=clarity(views.named_B2N), right=best == label_of.get(at))
        said.names.append(name)
        said.kinds.append(Named(probability=marks.probability, right=marks.kind == stock.concepts[at].kind_en))
        if at in label_of:
            said.own.append(name)
    return said


def _never() -> None:
    """Nobody waits."""


def main() -> None:
    """Choose and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/vl"))
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--pictures", type=int, default=1200)
    options = parser.parse_args()
    speaker, _ = load_generator(options.model)
    concepts, (_, others) = load_concepts(options.data / "concepts.json"), load_others(options.data)
    stock = load_stock(options.data, [*concepts, *as_concepts(others)], evaluation=False)
    stock = replace(stock, concepts=tuple(concepts))
    fresh = drawn_for_the_first_time(speaker, stock, others, options.pictures, seed=12)
    drawn = surely_right(fresh.names, PLAINLY_RIGHT)
    names, kinds = said_of_pictures(speaker, stock, options.pictures, seed=11, drawn=drawn)
    chosen = choose(names, kinds, fresh)
    nameless = fresh.nameless(chosen.drawn)
    for title, least, said in (("sure", chosen.sure, names), ("likely", chosen.likely, names),
                               ("kind", chosen.kind, kinds), ("drawn kind", chosen.drawn_kind, nameless),
                               ("drawn", chosen.drawn, fresh.names), ("guess", chosen.guess, fresh.own)):
        some = [one.right for one in said if one.probability >= least]
        share = sum(some) / max(1, len(some))
        print(f"{title}: from {least}, {len(some)} of {len(said)}, {share:.1%} right")
    file = options.model / CONFIG
    config = json.loads(file.read_text("utf-8"))
    config["thresholds"] = asdict(chosen)
    file.write_text(json.dumps(config) + "\n", "utf-8")


if __name__ == "__main__":
    main()
