"""A generator that says of a picture what the decoder is taught to say: the training's own texts.

It stands for a decoder that has learnt everything, so that what is made of its words can be held to laws.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from PIL import Image
from torch import nn

from tests.unit.vl_service.scenes import class_probabilities, landscape, plain, spotted
from training.vl.texts import chinese, english
from training.vl.texts.rows import text_tokens
from training.vl.texts.sight import Sight, Thing, record_of
from training.vl.texts.truths import _named
from vl_service.embedded.model.decoder import Decoder, DecoderConfig
from vl_service.embedded.model.generator import PART_MARKERS, Generator
from vl_service.embedded.model.observation import Observation, Said, Thresholds
from vl_service.embedded.model.record import Sureness, read_record
from vl_service.embedded.model.tokens import Tokenizer, make_tokenizer, pieces_of
from vl_service.embedded.vision.branch import Branch, Branches
from vl_service.embedded.vision.facts import measure_facts
from vl_service.embedded.vision.kinds import rank_names
from vl_service.embedded.vision.tower import ImageNetTower
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import profiles

MARKER_OF = {part: marker for marker, part in PART_MARKERS.items()}
SEEDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One text: its header and its parts, each with its marker or none."""

    header: tuple[str, ...]
    parts: list[tuple[str, str]]


def thing_of_class(number: int) -> Thing:
    """An ImageNet class as texts name it."""
    return _named(rank_names(class_probabilities({number: 0.9}))[0])


def sight_of(
    thing: Thing | None, picture: Image.Image | None = None, *, sureness: Sureness = "sure", count: int = 1,
    x: float = 0.5, y: float = 0.5, extent: float = 0.3, setting: str = "unclear",
) -> Sight:
    """A sight of a thing with what is measured of the picture."""
    picture = picture or plain()
    facts = measure_facts(picture, width=picture.width, height=picture.height)
    return Sight(thing=thing, sureness=sureness if thing else "unsure", count=count, colour="brown", x=x, y=y,
                 extent=extent, setting=setting, facts=facts, aspect=picture.width / picture.height)


def lines_about(sight: Sight, seed: int) -> list[Line]:
    """Every text but answers, in both languages."""
    found = []
    for language, writer in (("en", english), ("zh", chinese)):
        mark = f"<{language}>"
        rng = random.Random(f"{seed} {language}")
        found.append(Line(header=("<caption>", mark), parts=[("", writer.caption(sight, rng))]))
        found.append(Line(header=("<edits>", mark), parts=[("", "\n".join(writer.edits(sight, rng)))]))
        for name, profile in profiles().items():
            if language in profile.languages:
                parts = [(MARKER_OF[part], text) for part, text in writer.prompt(sight, name, rng)]
                found.append(Line(header=(f"<prompt:{name}>", mark), parts=parts))
    return found


def words_of(sights: Sequence[Sight]) -> Tokenizer:
    """A tokenizer with every word of the texts about the sights."""
    texts = [text for sight in sights for seed in range(SEEDS) for line in lines_about(sight, seed)
             for _, text in line.parts]
    answers = ("I do not see it.", "The subject is on the left.", "我没有看到它。", "主体在画面左侧。")
    return make_tokenizer(sorted({piece for text in (*texts, *answers) for piece in pieces_of(text)}))


class TaughtGenerator(Generator):
    """Says of any picture what is true of one sight."""

    def __init__(self, sight: Sight, tokenizer: Tokenizer) -> None:
        decoder = Decoder(DecoderConfig(vocabulary=1, names=1, width=8, layers=1, heads=1))
        branches = Branches([Branch(ImageNetTower().model, 1)])
        thresholds = Thresholds(sure=0.5, likely=0.3, kind=0.3, drawn_kind=0.5, drawn=0.5, guess=0.5)
        super().__init__(nn.Identity(), branches, (), decoder, tokenizer, thresholds)
        self._sight = sight

    def see(self, picture: DecodedImage, check: Callable[[], None], named: bool = True) -> Observation:
        """The record of the sight; unnamed it is unsure."""
        check()
        if not named:
            self._sight = replace(self._sight, sureness="unsure")
        return Observation(record=read_record(record_of(self._sight), 0.9), facts=self._sight.facts, cache=[])

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        """The text of the header; a seed draws one of many wordings."""
        check()
        line = next(line for line in lines_about(self._sight, 0 if seed is None else seed % SEEDS)
                    if line.header == tuple(header))
        tokens, given = text_tokens(self.tokenizer, list(line.header), "", line.parts)
        said = tokens[given:-1]
        return Said(tokens=tuple(said[:at_most]), ended=len(said) < at_most, least=1.0)


@cache
def taught() -> dict[str, TaughtGenerator]:
    """A few very different pictures."""
    tabby, espresso, ship, lighthouse, candle, beach = (
        thing_of_class(number) for number in (281, 967, 510, 437, 470, 978))
    sights = {
        "cat": sight_of(tabby), "unsure": sight_of(None), "some kind": sight_of(tabby, sureness="unsure"),
        "likely": sight_of(tabby, sureness="likely"), "coffee": sight_of(espresso, setting="indoors"),
        "three cats": sight_of(tabby, count=3, extent=0.6),
        "ship at sea": sight_of(ship, landscape(), setting="outdoors"),
        "beach": sight_of(beach, landscape(), setting="outdoors"),
        "tall tower": sight_of(lighthouse, landscape(120, 240), setting="outdoors"),
        "candle": sight_of(candle, plain(colour=(20, 10, 5))), "patch": sight_of(None, spotted(0.2, 0.5)),
        "grey": sight_of(tabby, plain(colour=(90, 90, 90)), sureness="likely"),
    }
    tokenizer = words_of(list(sights.values()))
    return {name: TaughtGenerator(sight, tokenizer) for name, sight in sights.items()}


