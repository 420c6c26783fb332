"""What the decoder has seen and said of one picture, and from where on it says it."""

from dataclasses import dataclass

from torch import Tensor

from vl_service.embedded.model.decoder import Cache
from vl_service.embedded.model.record import Record
from vl_service.embedded.vision.detections import Detections
from vl_service.embedded.vision.facts import ImageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which probability on something is said of a picture; chosen by training/vl/thresholds.py."""

    sure: float
    """A name, surely; under it with a "probably"."""
    likely: float
    """A name at all; under it only the kind of thing."""
    kind: float
    """The kind as the decoder says it, where there is no name and nothing is drawn; under it nothing is named."""
    drawn_kind: float
    """The kind as the branch knows it, of what is drawn."""
    drawn: float
    """How sure the branch, or the tower, must be for anything drawn to be named at all. The decoder alone is too sure:
    in training it saw every drawing, the branch not."""
    guess: float
    """How sure the branch must be for the name of something drawn to be guessed, where it is not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Views of one picture as the decoder has read them, the picture itself first; nothing is said yet."""

    hidden: Tensor
    """`[views, width]`, the last states."""
    cache: Cache
    facts: ImageFacts
    clarity: float
    """How sure the branch is of what is drawn.

    Of a photograph 1 if the tower is as sure as it was in training where there was a name, else 0.
    """
    detections: Detections | None
    """What the branch knows of what is drawn, None where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One picture, looked at: its record, its measured facts, and the cache that every text goes on from."""

    record: Record
    facts: ImageFacts
    cache: Cache
    guesses: tuple["Observation", ...] = ()
    """The same picture with a name that may be guessed, where the record has none; of several things also as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A record as tokens, how probable its name and its kind are, and the picture's own cache after it."""

    tokens: list[int]
    name: float
    kind: float
    cache: Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Tokens of one text without its header, whether it came to its end, and the probability of the least likely."""

    tokens: tuple[int, ...]
    ended: bool
    least: float
