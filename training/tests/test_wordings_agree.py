"""What is trained on must name one motion: no request stands under two, nor under one motion in both directions."""

import re
from itertools import product

import pytest

from training.video.prompts import CHINESE, CLOCKWISE, ENGLISH, FRAMES, PHRASES
from training.video.scenes import MOTIONS

_OPPOSITES = (
    ("left", "right"), ("leftward", "rightward"), ("leftwards", "rightwards"), ("up", "down"), ("upward", "downward"),
    ("upwards", "downwards"), ("top", "bottom"), ("above", "below"), ("higher", "lower"), ("upper", "lower"),
    ("in", "out"), ("closer", "farther"), ("bigger", "smaller"), ("clockwise", "counterclockwise"),
)
_OPPOSITE_SIGNS = str.maketrans("左右上下远近顺逆", "右左下上近远逆顺")


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def _turned_round(text: str) -> str:
    """`text` with each direction in it replaced by its opposite."""
    other = dict(_OPPOSITES) | {b: a for a, b in reversed(_OPPOSITES)}
    return " ".join(other.get(word, word) for word in text.split()).translate(_OPPOSITE_SIGNS)


def _phrases(motion: str) -> list[tuple[str, str]]:
    """(kind, phrase) of `motion`, with every way to say clockwise."""
    return [
        (kind, phrase.format(cw=turn))
        for kind, phrases in PHRASES.get(motion, {}).items() for phrase in phrases
        for turn in CLOCKWISE.get(motion, {}).get("zh" if kind == "zh" else "en", [""])
    ]


def _wordings(motion: str) -> list[str]:
    return [text.format(a="", j="", s="it") for text in ENGLISH[motion]] + [
        text.format(a="", s="它") for text in CHINESE[motion]]


def _requests(motion: str) -> set[str]:
    framed = (frame.format(x=phrase) for kind, phrase in _phrases(motion) for frame in FRAMES[kind])
    return {_plain(text) for text in (*framed, *_wordings(motion))}


def test_no_request_stands_under_two_motions() -> None:
    asked_for: dict[str, str] = {}
    twice = [
        (text, motion, asked_for[text]) for motion in MOTIONS for text in sorted(_requests(motion))
        if asked_for.setdefault(text, motion) != motion
    ]
    assert not twice


@pytest.mark.parametrize("motion", MOTIONS)
def test_no_motion_is_asked_for_by_a_request_and_by_the_opposite_one(motion: str) -> None:
    asked = {_plain(text) for text in (*(phrase for _, phrase in _phrases(motion)), *_wordings(motion))}
    assert not [text for text in asked if _turned_round(text) != text and _turned_round(text) in asked]


def test_every_frame_holds_one_phrase_and_every_phrase_is_listed_once() -> None:
    assert not [frame for kind in ("do", "noun", "zh") for frame in FRAMES[kind] if frame.count("{x}") != 1]
    for motion, kind in product(PHRASES, ("do", "noun", "zh")):
        phrases = PHRASES[motion][kind]
        assert len(phrases) == len(set(phrases)), (motion, kind)
