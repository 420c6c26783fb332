"""Requests drawn from the slot grammar of ways.toml, most of which name both ends of a way."""

import random
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_GRAMMAR: dict[str, Any] = tomllib.loads((_HERE / "ways.toml").read_text(encoding="utf-8"))
_MOTIONS: dict[str, dict[str, str]] = _GRAMMAR["motions"]
WAY_MOTIONS = tuple(_MOTIONS)
SLOT = re.compile(r"\{(\w+)\}")
TRIES = 100


def bare(text: str) -> str:
    """Letters, signs and digits only: two requests that differ in spaces, case or punctuation are one."""
    return re.sub(r"[\W_]+", "", text.lower())


@cache
def held_out_wordings() -> frozenset[str]:
    """The evaluation's own wordings, which no request drawn here may contain, or it would measure memory."""
    table = tomllib.loads((_HERE.parent / "evaluation" / "held_out.toml").read_text(encoding="utf-8"))
    return frozenset(bare(text) for ways in table.values() for texts in ways.values() for text in texts)


def templates(motion: str, language: str) -> list[str]:
    return _GRAMMAR[_MOTIONS[motion]["family"]][language]["templates"]


def fillers(slot: str, motion: str, language: str) -> list[str]:
    """What may stand in `slot`. {to} and {from}, alone or before an underscore, are bound to the motion's own ends."""
    bound = _MOTIONS[motion]
    head, _, rest = slot.partition("_")
    name = "_".join(part for part in (bound[head] if head in ("to", "from") else head, rest) if part)
    tables = _GRAMMAR[bound["family"]][language]
    return tables[name] if name in tables else _GRAMMAR["shared"][language][name]


def filled(template: str, motion: str, rng: random.Random, language: str, adverb: str = "") -> str:
    """`template` with every slot filled, also those that stand in fillers; {a} is how fast."""
    def fill(slot: re.Match[str]) -> str:
        if slot[1] == "a":
            return adverb
        return filled(rng.choice(fillers(slot[1], motion, language)), motion, rng, language)

    return SLOT.sub(fill, template)


def allowed_draw(draw: Callable[[], str], forbidden: frozenset[str]) -> str:
    """The first of `draw`'s requests that contains none of `forbidden`, which are bare."""
    for _ in range(TRIES):
        text = draw()
        plain = bare(text)
        if not any(wording in plain for wording in forbidden):
            return text
    raise RuntimeError(f"each of {TRIES} requests contains a held-out wording")


def drawn_way(motion: str, rng: random.Random, language: str, adverb: str = "") -> str:
    """One request for `motion`; the same seed gives the same request."""
    def draw() -> str:
        return filled(rng.choice(templates(motion, language)), motion, rng, language, adverb)

    return allowed_draw(draw, held_out_wordings())
