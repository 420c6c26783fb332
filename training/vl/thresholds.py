"""Chooses from which probability on the decoder names a thing surely, or at all, and writes it into config.json.

    PYTHONPATH=services:. python -m training.vl.thresholds --model models/vl     # about four minutes on one core

Pictures are composed as for training, of things that training showed: named ones, and strange ones, for which every
name is wrong. Each cut-out is turned, tinted or cut first, since the decoder knows the drawings themselves by heart.
A name is said at all from where it is right more often than wrong; a name surely, and a kind, from where they are right
nine times in ten.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.vl.compose import SIDE, Stock, compose, load_stock
from training.vl.concepts import load_concepts
from training.vl.verdicts import kind_words, names_it, words_of_concept
from vl_service.embedded_checkpoint import CONFIG, load_speaker
from vl_service.pictures import Picture
from vl_service.speaker import Speaker, Thresholds

SURELY_RIGHT = 0.9
NAMING, KINDS = Thresholds(sure=0.0, likely=0.0, kind=0.0), Thresholds(sure=1.1, likely=1.1, kind=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """How probable the decoder found what it said of a picture, and whether that is right."""

    probability: float
    right: bool


def choose(names: Sequence[Named], kinds: Sequence[Named]) -> Thresholds:
    """Thresholds that serve these names, and these kinds said in their place, best."""
    likely = worth_saying(names)
    return Thresholds(sure=max(likely, surely_right(names)), likely=likely, kind=surely_right(kinds))


def surely_right(said: Sequence[Named]) -> float:
    """The least from where on SURELY_RIGHT of it is right."""
    ranked = sorted(said, key=lambda one: -one.probability)
    right = np.cumsum([one.right for one in ranked])
    good = np.nonzero(right / np.arange(1, len(ranked) + 1) >= SURELY_RIGHT)[0]
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


def said_of_pictures(speaker: Speaker, stock: Stock, count: int, seed: int) -> tuple[list[Named], list[Named]]:
    """What is named on pictures of known and strange things, and which kinds where no name is allowed."""
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
        look = speaker.look(Picture(rgb=square.resize((width, SIDE)), width=width, height=SIDE), _never)
        named, kind = (speaker.settle(look, thresholds, _never).record for thresholds in (NAMING, KINDS))
        if named.name:
            right = concept.role == "known" and names_it(named.name, words_of_concept(concept), "en")
            names.append(Named(probability=named.confidence, right=right))
        if kind.kind:
            kinds.append(Named(probability=kind.confidence, right=names_it(kind.kind, kind_words(concept), "en")))
    return names, kinds


def _never() -> None:
    """Nobody waits."""


def main() -> None:
    """Choose and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/vl"))
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--pictures", type=int, default=600)
    options = parser.parse_args()
    speaker, _ = load_speaker(options.model)
    stock = load_stock(options.data, load_concepts(options.data / "concepts.json"), evaluation=False)
    names, kinds = said_of_pictures(speaker, stock, options.pictures, seed=11)
    chosen = choose(names, kinds)
    for title, least, said in (("sure", chosen.sure, names), ("likely", chosen.likely, names),
                               ("kind", chosen.kind, kinds)):
        some = [one.right for one in said if one.probability >= least]
        share = sum(some) / max(1, len(some))
        print(f"{title}: from {least}, {len(some)} of {options.pictures} pictures, {share:.1%} right")
    file = options.model / CONFIG
    config = json.loads(file.read_text("utf-8"))
    config["thresholds"] = asdict(chosen)
    file.write_text(json.dumps(config, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
