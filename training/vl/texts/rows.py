"""Sights → rows of tokens: the record, then several texts that follow from it."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.describe import Language
from training.vl.texts import asking, chinese, english
from training.vl.texts.sight import Sight, Thing, record_of
from vl_service.embedded.model.decoder import RECORD_ROOM, TEXT_ROOM
from vl_service.embedded.model.generator import PART_MARKERS
from vl_service.embedded.model.tokens import Tokenizer

ROW = 315  # tokens a row: with the image tokens a multiple of 64
NO_SEGMENT = -1
_PROFILES: tuple[tuple[str, Language, float], ...] = (
    ("embedded", "en", 1.5),
    ("embedded", "zh", 1.5),
    ("turbowan", "en", 1.2),
    ("wan2.1", "en", 0.7),
    ("wan2.1", "zh", 0.7),
    ("wan2.2", "en", 1.0),
    ("wan2.2", "zh", 1.0),
    ("i2vgen-xl", "en", 0.5),
)
_PART_MARKERS = {part: marker for marker, part in PART_MARKERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`tokens`, `places`, `segments` (0: the record, 1…: texts, -1: nothing) and `weights` of the loss, `[ROW]` each.

    `weights[i]` is for predicting `tokens[i]` from what stands before it.
    """

    tokens: NDArray[np.int16]
    places: NDArray[np.int16]
    segments: NDArray[np.int8]
    weights: NDArray[np.uint8]


def text_tokens(
    tokenizer: Tokenizer, header: list[str], asked: str, parts: list[tuple[str, str]]
) -> tuple[list[int], int]:
    """Tokens of one text with its header, and how many of them are given rather than said."""
    numbers = tokenizer.numbers
    given = [numbers[name] for name in header]
    if asked:
        given += [*tokenizer.encode(asked)[:60], numbers["<answer>"]]
    said: list[int] = []
    for marker, text in parts:
        said += [*([numbers[marker]] if marker else []), *tokenizer.encode(text)]
    return [*given, *said, numbers["<eos>"]], len(given)


def _texts(tokenizer: Tokenizer, sight: Sight, rng: random.Random, others: list[Thing]) -> list[tuple[list[int], int]]:
    languages: tuple[Language, ...] = ("en", "zh")
    say = {"en": english, "zh": chinese}
    found = []
    language = rng.choice(languages)
    found.append(text_tokens(tokenizer, ["<caption>", f"<{language}>"], "", [("", say[language].caption(sight, rng))]))
    profile, language, _ = rng.choices(_PROFILES, [weight for _, _, weight in _PROFILES])[0]
    parts = [(_PART_MARKERS[part], text) for part, text in say[language].prompt(sight, profile, rng)]
    found.append(text_tokens(tokenizer, [f"<prompt:{profile}>", f"<{language}>"], "", parts))
    for _ in range(4):
        language = rng.choice(languages)
        question, answer = asking.ask(sight, rng, language, others)
        found.append(text_tokens(tokenizer, ["<question>", f"<{language}>"], question, [("", answer)]))
    language = rng.choice(languages)
    lines = "\n".join(say[language].edits(sight, rng))
    found.append(text_tokens(tokenizer, ["<edits>", f"<{language}>"], "", [("", lines)]))
    rng.shuffle(found)
    return found


def make_row(tokenizer: Tokenizer, sight: Sight, rng: random.Random, others: list[Thing]) -> Row:
    """The record and as many texts as fit."""
    tokens, places = np.zeros(ROW, np.int16), np.zeros(ROW, np.int16)
    segments, weights = np.full(ROW, NO_SEGMENT, np.int8), np.zeros(ROW, np.uint8)
    record = [tokenizer.numbers[piece] for piece in _spelt(tokenizer, record_of(sight))]
    used = min(len(record), RECORD_ROOM)
    tokens[:used], places[:used], segments[:used], weights[:used] = record[:used], np.arange(used), 0, 4
    for number, (text, given) in enumerate(_texts(tokenizer, sight, rng, others), start=1):
        end = used + len(text)
        if end > ROW or len(text) > TEXT_ROOM:
            continue
        tokens[used:end], places[used:end] = text, RECORD_ROOM + np.arange(len(text))
        segments[used:end], weights[used + given : end] = number, 1
        used = end
    return Row(tokens=tokens, places=places, segments=segments, weights=weights)


def _spelt(tokenizer: Tokenizer, record: list[str]) -> list[str]:
    pieces: list[str] = []
    for piece in record:
        pieces += (
            [piece] if piece in tokenizer.numbers else [tokenizer.pieces[number] for number in tokenizer.encode(piece)]
        )
    return pieces
