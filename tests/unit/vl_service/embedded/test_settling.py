"""What becomes of a record that the decoder is not sure enough of, or of which the branch knows better."""

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.unit.vl_service.embedded.tiny_decoder import save_tiny_decoder
from tests.unit.vl_service.scenes import landscape
from vl_service.embedded.checkpoint import load_generator
from vl_service.embedded.model.decoder import Cache
from vl_service.embedded.model.generator import Generator
from vl_service.embedded.model.observation import Look, Observation, Thresholds
from vl_service.embedded.model.record import Record
from vl_service.embedded.vision.detections import Detections
from vl_service.images import DecodedImage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_decoder(tmp_path_factory.mktemp("models") / "vl")


def picture() -> DecodedImage:
    image = landscape()
    return DecodedImage(rgb=image, width=image.width, height=image.height)


RECORD = ["<sure>", "tabby", "cat", "<kind>", "cat", "<count>", "2", "<colour>", "grey", "<place>", "upper", "left",
          "<size>", "half", "<setting>", "in", "<end>"]


@cache
def looking(folder: Path) -> tuple[Generator, Look]:
    generator = load_generator(folder)[0]
    return generator, generator.look(picture(), lambda: None)


def looked(folder: Path) -> tuple[Generator, Look]:
    """A generator to change, and what it sees."""
    generator, look = looking(folder)
    return copy.copy(generator), look


def settled(folder: Path, sure: float, likely: float, kind: float, clarity: float = 1.0,
            detections: Detections | None = None) -> Record:
    """The record alone of what is settled."""
    return settled_and_said(folder, sure, likely, kind, clarity, detections)[0].record


def settled_and_said(
    folder: Path, sure: float, likely: float, kind: float, clarity: float = 1.0, detections: Detections | None = None
) -> tuple[Observation, list[str]]:
    """What is settled, and the pieces that the texts go on from.

    The decoder itself would say RECORD, every token of it with a probability of 0.9.

    From a clarity of 0.5 on what is drawn may be named, from 0.4 on guessed, from a probability of 0.5 on its kind.
    """
    generator, seen = looked(folder)
    generator.decoder = decoder = copy.copy(generator.decoder)
    numbers = generator.tokenizer.numbers
    other = math.log(0.1 / 0.9 / (decoder.config.vocabulary - 1))
    calls = 0

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        scores = torch.full((len(hidden), decoder.config.vocabulary), other)
        scores[:, numbers[RECORD[calls % len(RECORD)]]] = 0.0
        calls += 1
        return scores

    fed: list[int] = []
    feed = generator._feed

    def feeding(tokens: list[int], place: int, cache: Cache) -> tuple[torch.Tensor, Cache]:
        fed[place:] = tokens
        return feed(tokens, place, cache)

    generator._feed = feeding
    decoder.logits = logits  # pyright: ignore[reportAttributeAccessIssue]
    look = replace(seen, clarity=clarity, detections=detections)
    least = Thresholds(sure=sure, likely=likely, kind=kind, drawn_kind=0.5, drawn=0.5, guess=0.4)
    observation = generator.settle(look, least, lambda: None)
    return observation, [generator.tokenizer.pieces[token] for token in fed]


def test_what_is_not_probable_enough_is_said_with_less_sureness_or_not_at_all(folder: Path) -> None:
    name, kind = 0.9**3, 0.9**2  # the sureness and two words, a marker and a word
    sure = settled(folder, name - 0.01, 0.0, 0.0)
    assert (sure.sureness, sure.name, sure.kind, sure.count) == ("sure", "tabby cat", "cat", 2)
    assert sure.confidence == pytest.approx(name, abs=1e-4)
    likely = settled(folder, name + 0.01, name - 0.01, 0.0)
    assert (likely.sureness, likely.name) == ("likely", "tabby cat")
    unsure = settled(folder, name + 0.01, name + 0.01, kind - 0.01)
    assert (unsure.sureness, unsure.name, unsure.kind) == ("unsure", "", "cat")
    assert unsure.confidence == pytest.approx(kind, abs=1e-4)
    unknown = settled(folder, name + 0.01, name + 0.01, kind + 0.01)
    assert (unknown.sureness, unknown.name, unknown.kind) == ("unsure", "", "")


def test_what_is_drawn_unclearly_is_not_named_however_sure_the_decoder_is(folder: Path) -> None:
    assert settled(folder, 0.0, 0.0, 0.0, clarity=0.51).name == "tabby cat"
    unclear = settled(folder, 0.0, 0.0, 0.0, clarity=0.49)
    assert (unclear.sureness, unclear.name, unclear.kind) == ("unsure", "", "cat")


def detections(probability: float, name: str = "tabby cat") -> Detections:
    return Detections(name=name, kind="photo", probability=probability, count=3, colour="brown")


def test_of_what_is_drawn_the_branch_says_how_many_and_in_which_colour(folder: Path) -> None:
    found = settled(folder, 0.0, 0.0, 0.0, detections=detections(0.9))
    assert (found.sureness, found.name, found.kind) == ("sure", "tabby cat", "cat")
    assert (found.count, found.colour) == (3, "brown")


def test_of_what_is_drawn_unclearly_the_kind_is_the_branch_s_or_none(folder: Path) -> None:
    found = settled(folder, 0.0, 0.0, 0.0, clarity=0.39, detections=detections(0.51))
    assert (found.sureness, found.name, found.kind, found.count) == ("unsure", "", "photo", 3)
    assert found.confidence == pytest.approx(0.51)
    assert settled(folder, 0.0, 0.0, 0.0, clarity=0.39, detections=detections(0.49)).kind == ""


def test_several_of_what_is_not_known_at_all_are_counted_in_the_record_and_told_of_as_one(folder: Path) -> None:
    for probability, told in ((0.49, "1"), (0.51, "3")):
        observation, pieces = settled_and_said(folder, 0.0, 0.0, 0.0, clarity=0.39, detections=detections(probability))
        assert observation.record.count == 3
        assert pieces[pieces.index("<count>") + 1] == told


@pytest.mark.parametrize(("clarity", "kind", "probability", "guessed", "said"), [
    (0.41, "cat", 0.6, True, "cat"), (0.39, "cat", 0.6, False, "cat"), (0.41, "cat", 0.4, True, ""),
    (0.41, "photo", 0.6, True, ""), (0.39, "photo", 0.6, False, "photo"), (0.41, "photo", 0.4, True, ""),
])
def test_a_name_that_is_not_said_is_guessed_where_the_branches_are_sure_enough_and_another_kind_is_then_not_said(
    folder: Path, clarity: float, kind: str, probability: float, guessed: bool, said: str
) -> None:
    found = replace(detections(probability), kind=kind)
    observation, _ = settled_and_said(folder, 0.0, 0.0, 0.0, clarity=clarity, detections=found)
    assert (observation.record.name, observation.record.kind) == ("", said)
    assert [guess.record.name for guess in observation.guesses] == ["tabby cat", "tabby cat"] * guessed
    assert all(guess.record.count == 3 for guess in observation.guesses)  # the second is told of as one


def test_what_is_drawn_is_called_what_the_branches_call_it_and_less_surely_where_the_decoder_calls_it_otherwise(
    folder: Path
) -> None:
    found = settled(folder, 0.0, 0.0, 0.0, clarity=0.6, detections=detections(0.9, "upper half"))
    assert (found.sureness, found.name, found.kind) == ("likely", "upper half", "cat")
    assert found.confidence == pytest.approx(0.6)
    upper = detections(0.9, "upper half")
    guess = settled_and_said(folder, 0.0, 0.0, 0.0, clarity=0.45, detections=upper)[0].guesses[0]
    assert guess.record.name == "upper half"


def test_what_is_drawn_has_no_name_and_is_not_guessed_at_where_the_branches_have_none_for_it(folder: Path) -> None:
    observation, _ = settled_and_said(folder, 0.0, 0.0, 0.0, clarity=0.9, detections=detections(0.9, ""))
    assert (observation.record.sureness, observation.record.name, observation.record.kind) == ("unsure", "", "photo")
    assert observation.guesses == ()


def test_what_is_named_or_not_drawn_is_not_guessed_at(folder: Path) -> None:
    assert settled_and_said(folder, 0.0, 0.0, 0.0, detections=detections(0.9))[0].guesses == ()
    assert settled_and_said(folder, 1.0, 1.0, 0.0)[0].guesses == ()
