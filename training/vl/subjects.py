"""What rows of tokens are about, and the rows of all of it, written by worker processes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.vl.gather import Gallery
from training.vl.implants import Implants
from training.vl.pictures.compose import Truth
from training.vl.pictures.concepts import Concept
from training.vl.texts.rows import make_row
from training.vl.texts.sight import Sight
from training.vl.texts.truths import sight_of_cutout, sight_of_tower, thing_of
from vl_service.embedded.model.tokens import Tokenizer
from vl_service.embedded.vision.facts import ImageFacts

_SHARED: dict[str, object] = {}  # tokenizer and concepts, set before the workers are forked


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Every training row on the device; `pictures` and `additions` say what each is about."""

    tokens: Tensor
    places: Tensor
    segments: Tensor
    weights: Tensor
    pictures: Tensor
    additions: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a row is about: a cut-out by its truth, or (with `probabilities_K`) whatever the tower says."""

    truth: Truth
    facts: ImageFacts
    slots: list[int]
    probabilities_K: NDArray[np.float32] | None
    place: tuple[float, float, float] | None = None


def share_words(tokenizer: Tokenizer, concepts: list[Concept]) -> None:
    """Set what forked workers write rows with."""
    _SHARED.update(tokenizer=tokenizer, concepts=concepts)


def _sight(subject: Subject) -> Sight:
    concepts = _SHARED["concepts"]
    assert isinstance(concepts, list)
    if subject.probabilities_K is None:
        return sight_of_cutout(concepts[subject.truth.concept], subject.truth, subject.facts)
    return sight_of_tower(subject.probabilities_K, subject.truth, subject.facts, subject.slots, subject.place)


def _write_rows(job: tuple[int, list[Subject], int]) -> list[NDArray[np.generic]]:
    seed, subjects, repeats = job
    tokenizer, concepts = _SHARED["tokenizer"], _SHARED["concepts"]
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(concepts, list)
    rng = random.Random(seed)
    others = [thing_of(concept) for concept in concepts]
    sights = [_sight(subject) for subject in subjects]
    rows = [make_row(tokenizer, sight, rng, others) for sight in sights for _ in range(repeats)]
    return [np.stack([getattr(row, name) for row in rows]) for name in ("tokens", "places", "segments", "weights")]


def write_rows(
    pool: Pool,
    subjects: Sequence[Subject],
    pictures: list[int],
    additions: list[int],
    repeats: int,
    seed: int,
    device: str,
) -> Rows:
    """Texts of every subject, `repeats` rows each."""
    jobs = [(seed + start, list(subjects[start : start + 128]), repeats) for start in range(0, len(subjects), 128)]
    parts = list(pool.imap(_write_rows, jobs))
    tokens, places, segments, weights = (
        torch.from_numpy(np.concatenate([part[number] for part in parts])).to(device) for number in range(4)
    )
    return Rows(
        tokens=tokens,
        places=places,
        segments=segments,
        weights=weights,
        pictures=torch.tensor(pictures, device=device).repeat_interleave(repeats),
        additions=torch.tensor(additions, device=device).repeat_interleave(repeats),
    )


def all_subjects(gallery: Gallery, implants: Implants) -> tuple[list[Subject], list[int], list[int]]:
    """What to write rows about, with the numbers of picture and implant (or -1) of each."""
    slots = gallery.slots_NS.tolist()
    mean = ((gallery.whole_NK.float().softmax(-1) + gallery.close_NK.float().softmax(-1)) / 2).cpu().numpy()
    subjects = [
        Subject(
            truth=truth,
            facts=gallery.facts[number],
            slots=slots[number],
            probabilities_K=mean[number].copy() if truth.concept < 0 else None,
        )
        for number, truth in enumerate(gallery.truths)
    ]
    pictures, additions = list(range(len(subjects))), [-1] * len(subjects)
    places, probabilities = implants.places_M3.tolist(), implants.probabilities_MK.numpy()
    for number, base in enumerate(implants.bases.tolist()):
        x, y, spread = places[number]
        subjects.append(
            Subject(
                truth=gallery.truths[base],
                facts=gallery.facts[base],
                slots=slots[base],
                probabilities_K=probabilities[number].copy(),
                place=(x, y, min(1.0, 7 * spread * spread)),
            )
        )
        pictures.append(base)
        additions.append(number)
    return subjects, pictures, additions
