"""Trains the embedded vision-language decoder: pictures and facts, the frozen tower, implants, texts, then the decoder.

    PYTHONPATH=services:. python -m training.vl.train --out OUT          # one H200, about seven minutes

Reads `training/data/vl` (`python -m training.vl.pack`). Writes model.safetensors (bfloat16), vocabulary.json,
config.json and training.json: losses, and how much of the record is right on pictures that training never saw.
"""

import argparse
import json
import multiprocessing
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.muon import Muon
from training.vl.compose import Truth, load_stock
from training.vl.concepts import load_concepts
from training.vl.gather import Gallery, Wanted, draw, gather, make_pool, share_stock
from training.vl.implants import Implants, image_tokens, make_implants
from training.vl.rows import ROW, make_row
from training.vl.sight import Sight, record_of
from training.vl.truths import sight_of_cutout, sight_of_tower, thing_of
from training.vl.vocabulary import vocabulary_pieces
from vl_service.decoder import PREFIX, Decoder, DecoderConfig, ImageTokens
from vl_service.facts import PictureFacts
from vl_service.kinds import vocabulary
from vl_service.tokens import Tokenizer, make_tokenizer, save_tokenizer

JOB = 64  # pictures a job of a worker
MISSING_CELLS = 0.05
LOUDNESS = 0.08
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
    facts: PictureFacts
    slots: list[int]
    probabilities_K: NDArray[np.float32] | None
    place: tuple[float, float, float] | None = None


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


def mask_of(segments_BT: Tensor) -> Tensor:
    """`[B, 1, L, L]`: image tokens see one another; words see them, the record and their own text so far."""
    batch, length = segments_BT.shape
    total = PREFIX + length
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_BT.device).tril()
    same = segments_BT[:, :, None] == segments_BT[:, None, :]
    words = causal & (same | (segments_BT[:, None, :] == 0))
    mask = torch.zeros(batch, total, total, dtype=torch.bool, device=segments_BT.device)
    mask[:, :, :PREFIX] = True
    mask[:, PREFIX:, PREFIX:] = words
    return mask[:, None]


class Learner:
    """One optimisation step over random rows."""

    def __init__(
        self, model: Decoder, gallery: Gallery, implants: Implants, weight_KC: Tensor, rows: Rows, device: str
    ) -> None:
        self.model, self.gallery, self.implants, self.weight_KC, self.rows = model, gallery, implants, weight_KC, rows
        self.device = device
        inner = [value for value in model.blocks.parameters() if value.ndim == 2]
        held = {id(value) for value in inner}
        self.muon = Muon(inner)
        self.adam = torch.optim.AdamW(
            [value for value in model.parameters() if id(value) not in held],
            lr=1e-3,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            fused=device == "cuda",
        )
        self.loss_of = torch.compile(self._loss, dynamic=False) if device == "cuda" else self._loss

    def _loss(self, prefix: Tensor, tokens: Tensor, places: Tensor, segments: Tensor, weights: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            states = torch.cat([prefix, self.model.embed(tokens, places)], dim=1)
            hidden, _ = self.model.hidden(states, mask_of(segments))
            # the state before a token predicts it
            logits = self.model.logits(hidden[:, PREFIX - 1 : -1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
        scale = weights.flatten().float()
        return (losses * scale).sum() / scale.sum()

    def _disturbed(self, image: ImageTokens) -> ImageTokens:
        """Features a little louder or softer, and cells of the grid missing: backgrounds are few, pictures many."""
        grid = image.grid_BPC
        kept = (torch.rand(*grid.shape[:2], 1, device=grid.device) > MISSING_CELLS).to(grid.dtype)
        loud = 1 + LOUDNESS * torch.randn(len(grid), 1, 1, device=grid.device)
        return replace(image, grid_BPC=grid * kept * loud, crop_BC=image.crop_BC * loud[:, 0])

    def step(self, chosen: Tensor, rate: float) -> Tensor:
        """Learn from these rows at this rate; returns the loss."""
        image = image_tokens(
            self.gallery, self.implants, self.weight_KC, self.rows.pictures[chosen], self.rows.additions[chosen]
        )
        image = self._disturbed(image)
        rows = self.rows
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            prefix = self.model.prefix(image).float()
        loss = self.loss_of(
            prefix, rows.tokens[chosen].long(), rows.places[chosen].long(), rows.segments[chosen], rows.weights[chosen]
        )
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        self.muon.step(rate)
        return loss.detach()


def fit(learner: Learner, seconds: float, batch: int, peak: float) -> list[dict[str, float]]:
    """Train for so long; the rate warms up over 2 % of the time and falls along a cosine."""
    count = len(learner.rows.tokens)
    started, steps, log = time.monotonic(), 0, []
    order, at = torch.randperm(count, device=learner.device), 0
    learner.model.train()
    while (share := (time.monotonic() - started) / seconds) < 1:
        if at + batch > count:
            order, at = torch.randperm(count, device=learner.device), 0
        rate = peak * min(1.0, (steps + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * share))))
        loss = learner.step(order[at : at + batch], rate)
        at, steps = at + batch, steps + 1
        if steps % 100 == 0 or steps < 3:
            log.append({"step": steps, "seconds": round(time.monotonic() - started, 1), "loss": round(float(loss), 4)})
            print(log[-1], f"{steps * batch / count:.2f} epochs", flush=True)
    return log


@torch.inference_mode()
def records(
    model: Decoder, gallery: Gallery, implants: Implants, weight_KC: Tensor, pictures: Tensor, tokenizer: Tokenizer
) -> list[list[str]]:
    """The records that the decoder says of pictures, greedily, as pieces."""
    model.eval()
    said: list[list[str]] = []
    for some in pictures.split(128):
        image = image_tokens(gallery, implants, weight_KC, some, torch.full_like(some, -1))
        prefix = model.prefix(image)
        hidden, cache = model.hidden(prefix, None)
        token, tokens = model.logits(hidden[:, -1]).argmax(-1), []
        for place in range(28):
            tokens.append(token)
            states = model.embed(token[:, None], torch.full_like(token[:, None], place))
            hidden, cache = model.hidden(states, None, cache)
            token = model.logits(hidden[:, -1]).argmax(-1)
        said += [[tokenizer.pieces[number] for number in row] for row in torch.stack(tokens, 1).tolist()]
    return said


def score(said: list[list[str]], sights: list[Sight]) -> dict[str, float]:
    """Shares of pictures whose record has the right name, kind, number, colour, place and setting."""

    def field(record: list[str], start: str) -> list[str]:
        if start not in record:
            return []
        rest = record[record.index(start) + 1 :]
        return rest[: next((number for number, piece in enumerate(rest) if piece.startswith("<")), len(rest))]

    found: dict[str, list[bool]] = {}
    for pieces, sight in zip(said, sights, strict=True):
        wanted = record_of(sight)
        found.setdefault("subject", []).append(pieces[: wanted.index("<kind>")] == wanted[: wanted.index("<kind>")])
        for name in ("kind", "count", "colour", "place", "setting"):
            found.setdefault(name, []).append(field(pieces, f"<{name}>") == field(wanted, f"<{name}>"))
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def load_tower(file: Path, device: str) -> EfficientNet:
    """The frozen tower, from weights in half precision."""
    tower = EfficientNet.from_name("efficientnet-lite2")
    tower.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    )
    tower = tower.eval().requires_grad_(False).to(device)
    return tower.half().to(memory_format=torch.channels_last) if device == "cuda" else tower


def _subjects(gallery: Gallery, implants: Implants) -> tuple[list[Subject], list[int], list[int]]:
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=44_032)
    parser.add_argument("--implants", type=float, default=1.1, help="as a multiple of the pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gather-s", type=float, default=100, help="draw no more pictures after so many seconds")
    parser.add_argument("--total-s", type=float, default=400, help="stop training so many seconds after the start")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--peak", type=float, default=1.2e-3)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--unseen", type=int, default=512, help="pictures of each kind to score at the end")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _gather(
    pool: Pool, pictures: int, seed: int, tower: EfficientNet, device: str, wanted: Wanted, seconds: float = 600
) -> Gallery:
    size = min(JOB, pictures)
    jobs = [replace(wanted, seed=seed + number, pictures=size) for number in range(pictures // size)]
    return gather(pool.imap_unordered(draw, jobs), tower, device, len(jobs) * size, seconds)


def _save(out: Path, model: Decoder, tokenizer: Tokenizer, report: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in model.state_dict().items()},
        out / "model.safetensors",
    )
    save_tokenizer(tokenizer, out / "vocabulary.json")
    (out / "config.json").write_text(json.dumps(model.config.as_dict(), indent=1) + "\n", "utf-8")
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def main() -> None:
    """Run every stage and write the weights."""
    chosen, started = _arguments(), time.monotonic()
    report: dict[str, object] = {"arguments": {key: str(value) for key, value in vars(chosen).items()}}

    def stamp(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)

    concepts = load_concepts(chosen.data / "concepts.json")
    tokenizer = make_tokenizer(vocabulary_pieces(concepts))
    vocabulary()
    _SHARED.update(tokenizer=tokenizer, concepts=concepts)
    context = multiprocessing.get_context("fork")
    share_stock(load_stock(chosen.data, concepts, evaluation=True))
    unseen_pool = make_pool(context, max(1, chosen.workers // 4))
    share_stock(load_stock(chosen.data, concepts, evaluation=False))
    pool = make_pool(context, chosen.workers)
    torch.manual_seed(0)
    tower = load_tower(chosen.data / "tower.safetensors", chosen.device)
    weight_KC = tower._fc.weight.detach()
    stamp(f"{len(tokenizer.pieces)} pieces, {len(concepts)} concepts")
    gallery = _gather(
        pool,
        chosen.pictures,
        1_000,
        tower,
        chosen.device,
        Wanted(roles=("known", "strange"), empty=14),
        chosen.gather_s,
    )
    stamp(f"{len(gallery.truths)} pictures")
    implants = make_implants(gallery, weight_KC, int(len(gallery.truths) * chosen.implants), random.Random(2))
    stamp("implants")
    subjects, pictures, additions = _subjects(gallery, implants)
    stamp("subjects")
    rows = write_rows(pool, subjects, pictures, additions, chosen.repeats, 3, chosen.device)
    stamp(f"{len(rows.tokens)} rows of {ROW}, {float((rows.segments >= 0).float().mean()):.2f} full")
    model = Decoder(DecoderConfig(vocabulary=len(tokenizer.pieces), width=chosen.width, layers=chosen.layers)).to(
        chosen.device
    )
    stamp(f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} M parameters")
    report["log"] = fit(
        Learner(model, gallery, implants, weight_KC, rows, chosen.device),
        chosen.total_s - (time.monotonic() - started),
        chosen.batch,
        chosen.peak,
    )
    stamp("trained")
    _save(chosen.out, model, tokenizer, report)
    for name, source, wanted in (
        ("as trained", pool, Wanted(roles=("known",))),
        ("new combinations", unseen_pool, Wanted(roles=("known",), novelty="combination")),
        ("new drawings", unseen_pool, Wanted(roles=("known",), novelty="drawing")),
        ("strange kinds", unseen_pool, Wanted(roles=("held",))),
    ):
        unseen = _gather(source, chosen.unseen, 900_000, tower, chosen.device, wanted)
        said = records(
            model, unseen, implants, weight_KC, torch.arange(len(unseen.truths), device=chosen.device), tokenizer
        )
        truths = [
            sight_of_cutout(concepts[truth.concept], truth, unseen.facts[n]) for n, truth in enumerate(unseen.truths)
        ]
        report[name] = score(said, truths)
        stamp(f"{name}: {report[name]}")
    _save(chosen.out, model, tokenizer, report)
    stamp("saved")
    unseen_pool.terminate()
    pool.terminate()


if __name__ == "__main__":
    main()
