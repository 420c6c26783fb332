"""Training pictures by the ten thousand, drawn by worker processes, looked at on the device."""

import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkContext
from multiprocessing.pool import Pool
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.vl.pictures.compose import SIDE, Stock, Truth, compose, held_combination
from vl_service.embedded.vision.branch import Branches
from vl_service.embedded.vision.facts import ImageFacts
from vl_service.embedded.vision.features import look, measure, name_tokens, thumbnails


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Pictures as one job returns them."""

    squares_BHW3: NDArray[np.uint8]
    truths: list[Truth]
    facts: list[ImageFacts]
    slots: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """All training pictures: what the decoder reads of them on the device, what is true of them here."""

    grid_NPC: Tensor
    crop_NC: Tensor
    whole_NK: Tensor
    close_NK: Tensor
    boxes_N3: Tensor
    thumbnails_N3HW: Tensor
    slots_NS: Tensor
    drawn_N2C: Tensor
    names_NM: Tensor
    name_levels_NM: Tensor
    where_NP: Tensor
    truths: list[Truth]
    facts: list[ImageFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One job: so many pictures, `empty` of them without a cut-out."""

    roles: tuple[str, ...]
    seed: int = 0
    pictures: int = 0
    empty: int = 0
    redrawn: float = 0.0
    """Share of the drawings that are turned, tinted or cut first."""
    novelty: Literal["", "combination", "drawing"] = ""
    """For evaluation: things in a number, or drawings of them, that no training picture shows."""


_STOCK: list[Stock] = []  # set before the workers are forked, so that they share it
_STOPPED = multiprocessing.get_context("fork").Event()


def share_stock(stock: Stock) -> None:
    """Set the stock that forked workers draw from."""
    _STOCK[:] = [stock]


def shared_stock() -> Stock:
    """The stock that was set last."""
    return _STOCK[0]


def draw(wanted: Wanted) -> Drawn | None:
    """Draw and measure the pictures of a job; `None` once enough were drawn."""
    if _STOPPED.is_set():
        return None
    stock, rng = _STOCK[0], random.Random(wanted.seed)
    chosen = choices(stock, wanted)
    made = []
    for number in range(wanted.pictures):
        if number < wanted.empty:
            made.append(compose(stock, rng, None))
        else:
            concept, count = rng.choice(chosen)
            made.append(compose(stock, rng, concept, held=wanted.novelty == "drawing", count=count,
                                redrawn_share=wanted.redrawn))
    measured = [measure(square, width=round(SIDE * truth.aspect), height=SIDE) for square, truth in made]
    return Drawn(
        squares_BHW3=np.stack([np.asarray(square) for square, _ in made]),
        truths=[truth for _, truth in made],
        facts=[facts for facts, _ in measured],
        slots=[slots for _, slots in measured],
    )


def choices(stock: Stock, wanted: Wanted) -> list[tuple[int, int | None]]:
    """The concepts, and the numbers of them where those are chosen, that a job draws from."""
    fitting = [(number, concept) for number, concept in enumerate(stock.concepts) if concept.role in wanted.roles]
    if wanted.novelty == "combination":
        return [
            (number, count)
            for number, concept in fitting
            for count in (2, 3, 4)
            if not concept.plural and held_combination(concept, count)
        ]
    if wanted.novelty == "drawing":
        return [(number, None) for number, concept in fitting if concept.held_files]
    # strange things twice as often: there are few of them, and telling them from known ones is the hardest
    return [(number, None) for number, concept in fitting for _ in range(2 if concept.role == "strange" else 1)]


def make_pool(context: ForkContext, workers: int) -> Pool:
    """Workers that share the stock; make them before the device is first used."""
    return context.Pool(workers)


def gather(
    jobs: Iterator[Drawn | None], tower: Any, branches: Branches, device: str, number: int, seconds: float
) -> Gallery:
    """Look at every picture that the workers draw, `number` at most; after so many seconds no more are drawn."""
    started = time.monotonic()
    _STOPPED.clear()
    half = torch.float16 if device == "cuda" else torch.float32
    parts: dict[str, list[Tensor]] = defaultdict(list)
    grid = torch.empty(number, 81, 1280, dtype=torch.float16, device=device)
    truths: list[Truth] = []
    facts: list[ImageFacts] = []
    for drawn in jobs:
        if drawn is None:
            continue
        if time.monotonic() - started > seconds:
            _STOPPED.set()
        squares = torch.from_numpy(drawn.squares_BHW3).to(device).permute(0, 3, 1, 2).contiguous()
        aspects = torch.tensor([truth.aspect for truth in drawn.truths], device=device)
        views = look(tower, branches, squares, aspects)
        names, name_levels = name_tokens(views.named_B2N)
        grid[len(truths) : len(truths) + len(squares)] = views.grid_BPC
        for name, value in (
            ("crop", views.crop_BC.to(half)),
            ("whole", views.whole_BK.to(half)),
            ("boxes", views.boxes_B3),
            ("close", views.close_BK.to(half)),
            ("thumbnails", thumbnails(squares)),
            ("slots", torch.tensor(drawn.slots, device=device)),
            ("drawn", views.drawn_B2C.to(half)),
            ("names", names),
            ("name_levels", name_levels),
            ("where", views.where_BP.to(half)),
        ):
            parts[name].append(value)
        truths += drawn.truths
        facts += drawn.facts
    joined = {name: torch.cat(values) for name, values in parts.items()}
    return Gallery(
        grid_NPC=grid[: len(truths)],
        crop_NC=joined["crop"],
        whole_NK=joined["whole"],
        close_NK=joined["close"],
        boxes_N3=joined["boxes"],
        thumbnails_N3HW=joined["thumbnails"],
        slots_NS=joined["slots"],
        drawn_N2C=joined["drawn"],
        names_NM=joined["names"],
        name_levels_NM=joined["name_levels"],
        where_NP=joined["where"],
        truths=truths,
        facts=facts,
    )
