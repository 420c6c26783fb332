"""The decoder at work: it looks at a picture, says its record once, then text after text from the same cache."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from vl_service.embedded.model.decoder import RECORD_ROOM, TEXT_ROOM, Cache, Decoder, ImageTokens
from vl_service.embedded.model.observation import Look, Observation, Said, Spoken, Thresholds
from vl_service.embedded.model.record import read_record
from vl_service.embedded.model.tokens import Tokenizer
from vl_service.embedded.vision.branch import Branches
from vl_service.embedded.vision.detections import Detections, Thing, detect
from vl_service.embedded.vision.features import (
    Views,
    box_levels,
    clarity,
    class_tokens,
    is_photograph,
    look,
    measure,
    name_tokens,
    square_tensor,
    thumbnails,
    to_square,
    tower_probabilities,
)
from vl_service.embedded.vision.kinds import LIKELY, rank_names
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import Part

TEMPERATURE = 0.7
TOP_P = 0.9
UNKNOWN = "unknown"  # a record's word for a kind that is not known
PART_MARKERS: dict[str, Part] = {
    "<photo>": "photo", "<shot>": "shot", "<motion>": "motion", "<ambience>": "ambience", "<around>": "setting",
    "<light>": "light", "<camera>": "camera",
}
"""What stands before each part of a prompt."""
LIVELY = ("<motion>", "<ambience>")  # parts of a prompt that may be drawn; what is there is not a matter of chance
ASKED_AT_MOST = 60  # tokens of a question that are read, as in training


class Generator:
    """A tower and its branches for drawings, a decoder and its words."""

    def __init__(
        self, tower: nn.Module, branches: Branches, things: Sequence[Thing], decoder: Decoder, tokenizer: Tokenizer,
        thresholds: Thresholds,
    ) -> None:
        """`things` are those that the branches tell apart."""
        self.tower, self.branches, self.things, self.decoder = tower, branches, things, decoder
        self.tokenizer, self.thresholds = tokenizer, thresholds
        self._lively = {tokenizer.numbers[marker]: marker in LIVELY for marker in PART_MARKERS}

    def see(self, picture: DecodedImage, check: Callable[[], None], named: bool = True) -> Observation:
        """Look at a picture and settle its record, if need be without a name for the subject.

        `check` is called now and then and may raise.
        """
        least = self.thresholds if named else replace(self.thresholds, sure=math.inf, likely=math.inf)
        return self.settle(self.look(picture, check), least, check)

    @torch.inference_mode()
    def look(self, picture: DecodedImage, check: Callable[[], None]) -> Look:
        """Let the tower look at every view, and the decoder read what it sees."""
        squares = views_of(to_square(picture.rgb))
        measured = [measure(square, width=picture.width, height=picture.height) for square in squares]
        check()
        squares_B3HW = torch.stack([square_tensor(square) for square in squares])
        views = look(self.tower, self.branches, squares_B3HW,
                     torch.full((len(squares),), picture.width / picture.height))
        detections = detect(views, squares[0], self.things)
        check()
        image = tokens_of(views, squares_B3HW, torch.tensor([slots for _, slots in measured]))
        hidden, cache = self.decoder.hidden(self.decoder.prefix(image), None)
        return Look(
            hidden=hidden[:, -1], cache=cache, facts=measured[0][0], clarity=_clarity(views), detections=detections)

    @torch.inference_mode()
    def settle(self, look: Look, thresholds: Thresholds, check: Callable[[], None]) -> Observation:
        """The likeliest record, except that what is not probable enough is said with less sureness, or not at all.

        Of what is drawn the branches say how many and in which colour, and what it is called. A name that is not said
        may be guessed; if it is of another kind, that is not said either.
        """
        numbers = self.tokenizer.numbers
        spoken = self._record(look, [], check)
        named = self._named(look, spoken, thresholds, check)
        if spoken.tokens[0] != numbers["<unsure>"]:
            if named is None or look.clarity < thresholds.drawn or named.name < thresholds.likely:
                spoken = self._record(look, [numbers["<unsure>"]], check)
            elif named.name < thresholds.sure and named.tokens[0] != numbers["<likely>"]:
                forced = [numbers["<likely>"], *self._called(named)[1:]]
                spoken = replace(self._record(look, forced, check), name=named.name)
            else:
                spoken = named
        unsure = spoken.tokens[0] == numbers["<unsure>"]
        guess = None
        if unsure and named is not None and look.detections is not None and look.clarity >= thresholds.guess:
            guess = self._observation(look, named)
        if unsure and (kind := self._kind(look, spoken, guess, thresholds)) is not None:
            forced = [numbers["<unsure>"], numbers["<kind>"], *self.tokenizer.encode(kind), numbers["<count>"]]
            sureness = spoken.kind if look.detections is None else look.detections.probability
            spoken = replace(self._record(_one(look) if kind == UNKNOWN else look, forced, check), kind=sureness)
        observation = self._observation(look, spoken)
        if guess is None or named is None:
            return observation
        if guess.record.count == 1:
            return replace(observation, guesses=(guess,))
        as_one = self._record(_one(look), self._called(named), check)  # the decoder may not know the plural
        return replace(observation, guesses=(guess, self._observation(look, as_one)))

    def _named(
        self, look: Look, likeliest: Spoken, thresholds: Thresholds, check: Callable[[], None]
    ) -> Spoken | None:
        """The likeliest record, of what is drawn with the name that the branches have for it.

        None if they have none, or are not even sure enough of it to guess. The decoder knows by heart what was kept
        back from them.
        """
        if look.detections is None:
            return likeliest
        if not look.detections.name or look.clarity < min(thresholds.drawn, thresholds.guess):
            return None
        numbers = self.tokenizer.numbers
        forced = [numbers["<likely>"], *self.tokenizer.encode(look.detections.name), numbers["<kind>"]]
        if likeliest.tokens[0] != numbers["<unsure>"] and self._called(likeliest)[1:] == forced[1:]:
            return likeliest
        return replace(self._record(look, forced, check), name=look.clarity)

    def _called(self, spoken: Spoken) -> list[int]:
        """The record as far as it names the thing, the marker behind that included."""
        kind = self.tokenizer.numbers["<kind>"]
        return [*takewhile(lambda token: token != kind, spoken.tokens), kind]

    def _observation(self, look: Look, spoken: Spoken) -> Observation:
        pieces = [self.tokenizer.pieces[token] for token in spoken.tokens]
        record = read_record(pieces, spoken.kind if pieces[0] == "<unsure>" else spoken.name)
        if look.detections is not None:
            record = replace(record, count=look.detections.count)
        return Observation(record=record, facts=look.facts, cache=spoken.cache)

    def _kind(self, look: Look, spoken: Spoken, guess: Observation | None, thresholds: Thresholds) -> str | None:
        """The kind to say in place of the decoder's own, if any: where the guess is of another, neither is known."""
        if look.detections is None:
            return UNKNOWN if spoken.kind < thresholds.kind else None
        kind = look.detections.kind if look.detections.probability >= thresholds.drawn_kind else UNKNOWN
        return UNKNOWN if guess is not None and guess.record.kind != kind else kind

    def _known(self, detections: Detections | None) -> dict[int, list[int]]:
        """What follows a marker of the record, the next marker included, as the branch knows it."""
        if detections is None:
            return {}
        count, colour, place = (self.tokenizer.numbers[name] for name in ("<count>", "<colour>", "<place>"))
        return {count: [*self.tokenizer.encode(str(detections.count)), colour],
                colour: [*self.tokenizer.encode(detections.colour), place]}

    def _record(self, look: Look, forced: list[int], check: Callable[[], None]) -> Spoken:
        """The likeliest record that begins with the forced tokens and says what the branch knows.

        All views have a say in what is there; the picture itself alone says where, for others show it elsewhere.
        """
        numbers = self.tokenizer.numbers
        markers = {numbers[name]: name for name in ("<kind>", "<count>", "<place>", "<end>")}
        hidden, cache = look.hidden, look.cache
        known, due, tokens = self._known(look.detections), list(forced), list[int]()
        marker, certain = "", {"": 1.0, "<kind>": 1.0}
        while len(tokens) < RECORD_ROOM and marker != "<end>":
            check()
            probabilities = self.decoder.logits(hidden).softmax(-1).mean(0)
            token = due.pop(0) if due else int(probabilities.argmax())
            due = due or list(known.get(token, ()))
            marker = markers.get(token, marker)
            if marker in certain:
                certain[marker] *= float(probabilities[token])
            hidden, cache = self._feed([token], len(tokens), cache)
            tokens.append(token)
            if marker == "<place>":
                hidden, cache = hidden[:1], _first(cache)
        return Spoken(tokens=tokens, name=certain[""], kind=certain["<kind>"], cache=_first(cache))

    def _feed(self, tokens: list[int], place: int, cache: Cache) -> tuple[Tensor, Cache]:
        places = torch.arange(place, place + len(tokens))[None]
        mask = None
        if len(tokens) > 1:
            past = cache[0][0].shape[2]
            mask = torch.ones(len(tokens), past + len(tokens), dtype=torch.bool).tril(past)
        words = self.decoder.embed(torch.tensor([tokens]), places).expand(len(cache[0][0]), -1, -1)
        hidden, grown = self.decoder.hidden(words, mask, cache)
        return hidden[:, -1], grown

    @torch.inference_mode()
    def say(
        self,
        observation: Observation,
        header: Sequence[str],
        asked: str,
        at_most: int,
        seed: int | None,
        check: Callable[[], None],
        until: str = "<eos>",
    ) -> Said:
        """A text up to the marker `until`; greedy without a seed, else drawn, of a prompt in its lively parts.

        Equal seeds draw equal texts.
        """
        numbers = self.tokenizer.numbers
        given = [numbers[name] for name in header]
        if asked:
            given += [*self.tokenizer.encode(asked)[:ASKED_AT_MOST], numbers["<answer>"]]
        generator = None if seed is None else torch.Generator().manual_seed(seed % 2**63)
        hidden, cache = self._feed(given, RECORD_ROOM, observation.cache)
        tokens: list[int] = []
        lively, least = True, 1.0
        for place in range(RECORD_ROOM + len(given), RECORD_ROOM + min(TEXT_ROOM, len(given) + at_most)):
            check()
            logits = self.decoder.logits(hidden)[0]
            token = _drawn(logits, generator if lively else None)
            least = min(least, float(logits.softmax(-1)[token]))
            if token in (numbers["<eos>"], numbers[until]):
                return Said(tokens=tuple(tokens), ended=True, least=least)
            tokens.append(token)
            lively = self._lively.get(token, lively)
            hidden, cache = self._feed([token], place, cache)
        return Said(tokens=tuple(tokens), ended=False, least=least)


def views_of(square: Image.Image) -> list[Image.Image]:
    """The square itself and mirrored: what is really there is there in both, what is only imagined seldom is."""
    return [square, ImageOps.mirror(square)]


def tokens_of(views: Views, squares_B3HW: Tensor, slots_BS: Tensor) -> ImageTokens:
    """What the decoder reads of uint8 squares, what was seen on them, and their measured slots."""
    slots = slots_BS.clone()
    slots[:, -3:] = box_levels(views.boxes_B3)
    classes, levels = class_tokens(views.whole_BK, views.close_BK)
    names, name_levels = name_tokens(views.named_B2N)
    return ImageTokens(
        grid_BPC=views.grid_BPC,
        crop_BC=views.crop_BC,
        thumbnails_B3HW=thumbnails(squares_B3HW),
        classes_BN=classes,
        levels_BN=levels,
        slots_BS=slots,
        drawn_B2C=views.drawn_B2C,
        names_BM=names,
        name_levels_BM=name_levels,
        where_BP=views.where_BP,
    )


def _one(look: Look) -> Look:
    """The same with one thing: training tells of several only where at least their kind is known."""
    return look if look.detections is None else replace(look, detections=replace(look.detections, count=1))


def _clarity(views: Views) -> float:
    if is_photograph(views):
        return float(rank_names(tower_probabilities(views).numpy())[0].probability >= LIKELY)
    return clarity(views.named_B2N)


def _first(cache: Cache) -> Cache:
    return [(keys[:1], values[:1]) for keys, values in cache]


def _drawn(logits: Tensor, generator: torch.Generator | None) -> int:
    if generator is None:
        return int(logits.argmax())
    values, order = (logits / TEMPERATURE).softmax(-1).sort(descending=True)
    values = torch.where(values.cumsum(0) - values < TOP_P, values, 0.0)
    return int(order[torch.multinomial(values, 1, generator=generator)])
