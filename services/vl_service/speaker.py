"""The decoder at work: it looks at a picture, says its record once, then text after text from the same cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vl_service.decoder import RECORD_ROOM, TEXT_ROOM, Cache, Decoder, ImageTokens
from vl_service.facts import PictureFacts
from vl_service.glance import (
    box_levels,
    class_tokens,
    look,
    measure,
    square_tensor,
    thumbnails,
    to_square,
)
from vl_service.pictures import Picture
from vl_service.record import Record, read_record
from vl_service.tokens import Tokenizer

TEMPERATURE = 0.7
TOP_P = 0.9
ASKED_AT_MOST = 60  # tokens of a question that are read, as in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Below which probability of the name a sure record is said with less sureness; chosen on training pictures."""

    sure: float
    likely: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """One picture, looked at: its record, its measured facts, and the cache that every text goes on from."""

    record: Record
    facts: PictureFacts
    cache: Cache


class Speaker:
    """A tower, a decoder and its words."""

    def __init__(self, tower: nn.Module, decoder: Decoder, tokenizer: Tokenizer, thresholds: Thresholds) -> None:
        self.tower, self.decoder, self.tokenizer, self.thresholds = tower, decoder, tokenizer, thresholds

    @torch.inference_mode()
    def see(self, picture: Picture, check: Callable[[], None]) -> Glimpse:
        """Look at a picture and settle its record; `check` is called now and then and may raise."""
        square = to_square(picture.rgb)
        facts, slots = measure(square, width=picture.width, height=picture.height)
        image = image_tokens_of(self.tower, square_tensor(square)[None], torch.tensor([slots]))
        check()
        hidden, cache = self.decoder.hidden(self.decoder.prefix(image), None)
        tokens, confidence, cache = self._record(hidden[:, -1], cache, check)
        pieces = [self.tokenizer.pieces[token] for token in tokens]
        return Glimpse(record=read_record(pieces, confidence), facts=facts, cache=cache)

    def _record(self, hidden: Tensor, cache: Cache, check: Callable[[], None]) -> tuple[list[int], float, Cache]:
        """Greedy, except that a name which the decoder itself finds improbable is not said surely, or not at all."""
        numbers = self.tokenizer.numbers
        tokens, named, after = self._greedy(hidden, cache, [], check)
        if tokens[0] == numbers["<unsure>"] or named >= self.thresholds.sure:
            return tokens, named, after
        first = "<likely>" if named >= self.thresholds.likely else "<unsure>"
        if tokens[0] == numbers[first]:
            return tokens, named, after
        tokens, _, after = self._greedy(hidden, cache, [numbers[first]], check)
        return tokens, named, after

    def _greedy(
        self, hidden: Tensor, cache: Cache, forced: list[int], check: Callable[[], None]
    ) -> tuple[list[int], float, Cache]:
        kind, end = self.tokenizer.numbers["<kind>"], self.tokenizer.numbers["<end>"]
        tokens: list[int] = []
        named, naming = 1.0, True
        while len(tokens) < RECORD_ROOM and (not tokens or tokens[-1] != end):
            check()
            probabilities = self.decoder.logits(hidden)[0].softmax(-1)
            token = forced[len(tokens)] if len(tokens) < len(forced) else int(probabilities.argmax())
            naming = naming and token != kind
            named *= float(probabilities[token]) if naming else 1.0
            hidden, cache = self._feed([token], len(tokens), cache)
            tokens.append(token)
        return tokens, named, cache

    def _feed(self, tokens: list[int], place: int, cache: Cache) -> tuple[Tensor, Cache]:
        places = torch.arange(place, place + len(tokens))[None]
        mask = None
        if len(tokens) > 1:
            past = cache[0][0].shape[2]
            mask = torch.ones(len(tokens), past + len(tokens), dtype=torch.bool).tril(past)
        hidden, grown = self.decoder.hidden(self.decoder.embed(torch.tensor([tokens]), places), mask, cache)
        return hidden[:, -1], grown

    @torch.inference_mode()
    def say(
        self,
        glimpse: Glimpse,
        header: Sequence[str],
        asked: str,
        at_most: int,
        seed: int | None,
        check: Callable[[], None],
    ) -> list[int]:
        """Tokens of a text; greedy without a seed, else drawn (equal seeds draw equal texts)."""
        numbers = self.tokenizer.numbers
        given = [numbers[name] for name in header]
        if asked:
            given += [*self.tokenizer.encode(asked)[:ASKED_AT_MOST], numbers["<answer>"]]
        generator = None if seed is None else torch.Generator().manual_seed(seed % 2**63)
        hidden, cache = self._feed(given, RECORD_ROOM, glimpse.cache)
        tokens: list[int] = []
        for place in range(RECORD_ROOM + len(given), RECORD_ROOM + min(TEXT_ROOM, len(given) + at_most)):
            check()
            token = _drawn(self.decoder.logits(hidden)[0], generator)
            if token == numbers["<eos>"]:
                break
            tokens.append(token)
            hidden, cache = self._feed([token], place, cache)
        return tokens


def image_tokens_of(tower: nn.Module, squares_B3HW: Tensor, slots_BS: Tensor) -> ImageTokens:
    """What the decoder reads of uint8 squares and their measured slots."""
    views = look(tower, squares_B3HW)
    slots = slots_BS.clone()
    slots[:, -3:] = box_levels(views.boxes_B3)
    classes, levels = class_tokens(views.whole_BK, views.close_BK)
    return ImageTokens(
        grid_BPC=views.grid_BPC,
        crop_BC=views.crop_BC,
        thumbnails_B3HW=thumbnails(squares_B3HW),
        classes_BN=classes,
        levels_BN=levels,
        slots_BS=slots,
    )


def _drawn(logits: Tensor, generator: torch.Generator | None) -> int:
    if generator is None:
        return int(logits.argmax())
    values, order = (logits / TEMPERATURE).softmax(-1).sort(descending=True)
    values = torch.where(values.cumsum(0) - values < TOP_P, values, 0.0)
    return int(order[torch.multinomial(values, 1, generator=generator)])
