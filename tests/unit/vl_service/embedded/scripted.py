"""A generator that says what scripts.json has for a picture: texts as a decoder says them that has learnt everything.

So what is made of its words can be held to laws. Its vocabulary is the one that is shipped.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from tests.unit.vl_service.scenes import landscape, plain
from vl_service.embedded.checkpoint import WORDS
from vl_service.embedded.model.decoder import Decoder, DecoderConfig
from vl_service.embedded.model.generator import PART_MARKERS, Generator
from vl_service.embedded.model.observation import Observation, Said, Thresholds
from vl_service.embedded.model.record import read_record
from vl_service.embedded.model.tokens import Tokenizer, load_tokenizer
from vl_service.embedded.text.answers import Answers
from vl_service.embedded.vision.branch import Branches
from vl_service.embedded.vision.facts import measure_facts
from vl_service.images import DecodedImage
from vl_service.settings import Settings

PICTURE = DecodedImage(rgb=plain(), width=192, height=128)
_MARKERS = re.compile(f"({'|'.join(PART_MARKERS)})")
_UNNAMED = "some kind"
"""What the cat is called where its name is not to be said."""


@cache
def shipped_words() -> Tokenizer:
    return load_tokenizer(Settings().models_dir / "vl" / WORDS)


@cache
def _unused_decoder() -> Decoder:
    return Decoder(DecoderConfig(vocabulary=1, names=1, width=8, layers=1, heads=1))


@cache
def _scripts() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "scripts.json").read_text("utf-8"))


@cache
def _observation(scene: str) -> Observation:
    script = _scripts()[scene]
    image = landscape() if script["landscape"] else plain()
    facts = measure_facts(image, width=image.width, height=image.height)
    return Observation(record=read_record(script["record"].split(), 0.9), facts=facts, cache=[])


SCENES = tuple(_scripts())


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call of `say`."""

    header: tuple[str, ...]
    asked: str
    seed: int | None


class Scripted(Generator):
    """Says the texts of a scene; `answer` is what it says to every question, as probable as `least`."""

    def __init__(self, scene: str, *, answer: str = "", least: float = 1.0) -> None:
        super().__init__(
            nn.Identity(), Branches([]), (), _unused_decoder(), shipped_words(),
            Thresholds(sure=0.5, likely=0.3, kind=0.3, drawn_kind=0.5, drawn=0.5, guess=0.5))
        self.scene, self._answer, self._least, self.asked = scene, answer, least, list[Asked]()

    def see(self, picture: DecodedImage, check: Callable[[], None], named: bool = True) -> Observation:
        """The scene's record; unnamed it is that of some kind of animal."""
        check()
        self.scene = self.scene if named else _UNNAMED
        return _observation(self.scene)

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        """The text of the header; a seed draws one of a few wordings."""
        check()
        self.asked.append(Asked(header=tuple(header), asked=asked, seed=seed))
        if header[0] == "<question>":
            return Said(tokens=tuple(self.tokenizer.encode(self._answer)), ended=True, least=self._least)
        wordings = _scripts()[self.scene]["texts"][" ".join(header)]
        tokens = self._tokens(wordings[(seed or 0) % len(wordings)])
        return Said(tokens=tuple(tokens[:at_most]), ended=len(tokens) < at_most, least=1.0)

    def _tokens(self, text: str) -> list[int]:
        numbers = self.tokenizer.numbers
        return [token for piece in _MARKERS.split(text)
                for token in ([numbers[piece]] if piece in PART_MARKERS else self.tokenizer.encode(piece))]


def answers_of(generator: Generator) -> Answers:
    """Answers about what the generator sees."""
    return Answers(generator, generator.see(PICTURE, lambda: None), lambda: None)
