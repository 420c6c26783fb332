"""Trains the embedded vision-language checkpoint: the tower's branch for drawings; then, of pictures that the frozen
tower and the branch look at, implants, texts, and the decoder.

    PYTHONPATH=services:. python -m training.vl.train --out OUT           # one H200, a quarter of an hour
    PYTHONPATH=services:. python -m training.vl.thresholds --model OUT    # then, on any machine

Reads `training/data/vl` (`python -m training.vl.pack`). Writes model.safetensors (bfloat16), branch.safetensors
(float16), vocabulary.json, config.json and training.json: losses, and how much of the record is right on pictures that
training never saw.
"""

import argparse
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.vl.compose import load_stock
from training.vl.concepts import Concept, load_concepts
from training.vl.drawings import Drawings, named_concepts, own_files
from training.vl.gather import Drawn, Gallery, Wanted, draw, gather, make_pool, share_stock, shared_stock
from training.vl.implants import Implants, make_implants
from training.vl.learner import Learner, fit
from training.vl.openclipart import ORIGIN
from training.vl.rows import ROW
from training.vl.scoring import records, score
from training.vl.subjects import Rows, all_subjects, share_words, write_rows
from training.vl.teach_branch import named_right, teach
from training.vl.truths import sight_of_cutout
from training.vl.vocabulary import vocabulary_pieces
from vl_service.branch import Branch
from vl_service.decoder import Decoder, DecoderConfig
from vl_service.kinds import vocabulary
from vl_service.tokens import Tokenizer, make_tokenizer, save_tokenizer

JOB = 64  # pictures a job of a worker
SCENES = 4096  # that the branch sees drawings on


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every stage works with; `seen` and `unseen` are workers with the backgrounds of training and evaluation."""

    chosen: argparse.Namespace
    started: float
    tokenizer: Tokenizer
    concepts: list[Concept]
    seen: Pool
    unseen: Pool
    tower: EfficientNet

    def stamp(self, what: object) -> None:
        """Say what was reached, and when."""
        print(f"{time.monotonic() - self.started:6.1f} s  {what}", flush=True)

    def drawn(self, pool: Pool, pictures: int, seed: int, wanted: Wanted) -> Iterator[Drawn | None]:
        """Pictures that the workers draw, from now on, by the job."""
        size = min(JOB, pictures)
        return pool.imap_unordered(
            draw, [replace(wanted, seed=seed + number, pictures=size) for number in range(pictures // size)])


def load_tower(file: Path, device: str) -> EfficientNet:
    """The frozen tower, from weights in half precision."""
    tower = EfficientNet.from_name("efficientnet-lite2")
    tower.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    )
    tower = tower.eval().requires_grad_(False).to(device)
    return tower.half().to(memory_format=torch.channels_last) if device == "cuda" else tower


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="a checkpoint of the same names and words to go on from")
    parser.add_argument("--rate", type=float, default=1.0, help="of all learning rates; less after --resume")
    parser.add_argument("--pictures", type=int, default=44_032)
    parser.add_argument("--implants", type=float, default=1.1, help="as a multiple of the pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--redrawn", type=float, default=0.0, help="share of the drawings turned, tinted or cut")
    parser.add_argument("--branch-s", type=float, default=400, help="teach the branch for so many seconds")
    parser.add_argument("--branch-batch", type=int, default=256)
    parser.add_argument("--gather-s", type=float, default=100, help="draw no more pictures after so many seconds")
    parser.add_argument("--total-s", type=float, default=1000, help="stop training so many seconds after the start")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--peak", type=float, default=1.2e-3)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--unseen", type=int, default=512, help="pictures of each kind to score at the end")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _save(setup: Setup, model: Decoder, branch: Branch, report: dict[str, object]) -> None:
    out = setup.chosen.out
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in model.state_dict().items()},
        out / "model.safetensors",
    )
    save_file({name: (value.half() if value.is_floating_point() else value).to("cpu").contiguous()
               for name, value in branch.state_dict().items()}, out / "branch.safetensors")
    save_tokenizer(setup.tokenizer, out / "vocabulary.json")
    kinds = [setup.concepts[at].kind_en for at in named_concepts(setup.concepts)]
    (out / "config.json").write_text(json.dumps(model.config.as_dict() | {"kinds": kinds}) + "\n", "utf-8")
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _set_up(chosen: argparse.Namespace) -> Setup:
    started = time.monotonic()
    concepts = load_concepts(chosen.data / "concepts.json")
    tokenizer = make_tokenizer(vocabulary_pieces(concepts))
    vocabulary()
    share_words(tokenizer, concepts)
    context = multiprocessing.get_context("fork")
    others = load_stock(chosen.data, concepts, evaluation=True)
    share_stock(others)
    unseen = make_pool(context, max(1, chosen.workers // 4))
    share_stock(load_stock(chosen.data, concepts, evaluation=False, cutouts=others.cutouts))
    seen = make_pool(context, chosen.workers)
    torch.manual_seed(0)
    tower = load_tower(chosen.data / "tower.safetensors", chosen.device)
    setup = Setup(chosen=chosen, started=started, tokenizer=tokenizer, concepts=concepts, seen=seen, unseen=unseen,
                  tower=tower)
    setup.stamp(f"{len(tokenizer.pieces)} pieces, {len(concepts)} concepts")
    return setup


def _scenes(setup: Setup) -> Tensor:
    """Pictures without a cut-out, uint8 `[N, 3, 320, 320]`."""
    jobs = setup.drawn(setup.seen, min(SCENES, setup.chosen.pictures), 500_000, Wanted(roles=("known",), empty=JOB))
    scenes = torch.from_numpy(np.concatenate([drawn.squares_BHW3 for drawn in jobs if drawn]))
    setup.stamp(f"{len(scenes)} scenes")
    return scenes.permute(0, 3, 1, 2).contiguous().to(setup.chosen.device)


def _branch(setup: Setup, scenes: Tensor) -> Branch:
    """The branch, taught on all drawings that are not kept back from it, and how well it names those that are."""
    chosen, concepts = setup.chosen, setup.concepts
    named = [concepts[at] for at in named_concepts(concepts)]
    stock = shared_stock()
    branch = Branch(setup.tower, len(named) + 1).float().requires_grad_(True)
    if chosen.resume:
        branch.load_state_dict(load_file(chosen.resume / "branch.safetensors"))
    branch.to(chosen.device)
    own = Drawings(stock, [own_files(concept) for concept in named], scenes)
    branch = teach(setup.tower, branch, own, chosen.branch_s, batch=chosen.branch_batch, rate=chosen.rate,
                   say=setup.stamp)
    if chosen.device == "cuda":
        branch = branch.half()
    for name, files in (
        ("as taught", [own_files(concept) for concept in named]),
        ("kept back", [sorted({*concept.files} - {*own_files(concept)}) for concept in named]),
        ("kept back, clip-art", [sorted(name for name in {*concept.files} - {*own_files(concept)} if ORIGIN in name)
                                 for concept in named]),
        ("held out", [list(concept.held_files) for concept in named]),
    ):
        right = named_right(setup.tower, branch, Drawings(stock, files, scenes), 12, chosen.branch_batch)
        setup.stamp(f"{sum(map(len, files))} drawings {name}: {right:.1%} named by the branch")
    return branch


def _material(setup: Setup, jobs: Iterator[Drawn | None], branch: Branch) -> tuple[Gallery, Implants, Rows]:
    """Pictures, classes added to scenes of them, and the rows about both."""
    chosen = setup.chosen
    gallery = gather(jobs, setup.tower, branch, chosen.device, chosen.pictures, chosen.gather_s)
    setup.stamp(f"{len(gallery.truths)} pictures")
    weight_KC, number = setup.tower._fc.weight.detach(), int(len(gallery.truths) * chosen.implants)
    implants = make_implants(gallery, weight_KC, number, random.Random(2))
    setup.stamp("implants")
    subjects, pictures, additions = all_subjects(gallery, implants)
    setup.stamp("subjects")
    rows = write_rows(setup.seen, subjects, pictures, additions, chosen.repeats, 3, chosen.device)
    setup.stamp(f"{len(rows.tokens)} rows of {ROW}, {float((rows.segments >= 0).float().mean()):.2f} full")
    return gallery, implants, rows


def _scores(setup: Setup, branch: Branch, model: Decoder, implants: Implants) -> dict[str, object]:
    """Shares of the record that are right, on pictures as trained and as never trained."""
    found: dict[str, object] = {}
    for name, source, wanted in (
        ("as trained", setup.seen, Wanted(roles=("known",))),
        ("new combinations", setup.unseen, Wanted(roles=("known",), novelty="combination")),
        ("new drawings", setup.unseen, Wanted(roles=("known",), novelty="drawing")),
        ("strange kinds", setup.unseen, Wanted(roles=("held",))),
    ):
        jobs = setup.drawn(source, setup.chosen.unseen, 900_000, wanted)
        unseen = gather(jobs, setup.tower, branch, setup.chosen.device, setup.chosen.unseen, 600)
        pictures = torch.arange(len(unseen.truths), device=setup.chosen.device)
        said = records(model, unseen, implants, setup.tower._fc.weight.detach(), pictures, setup.tokenizer)
        sights = [sight_of_cutout(setup.concepts[truth.concept], truth, unseen.facts[number])
                  for number, truth in enumerate(unseen.truths)]
        found[name] = score(said, sights)
        setup.stamp(f"{name}: {found[name]}")
    return found


def main() -> None:
    """Run every stage and write the weights, before they are scored and after."""
    chosen = _arguments()
    report: dict[str, object] = {"arguments": {key: str(value) for key, value in vars(chosen).items()}}
    setup = _set_up(chosen)
    wanted = Wanted(roles=("known", "strange"), empty=14, redrawn=chosen.redrawn)
    scenes = _scenes(setup)
    jobs = setup.drawn(setup.seen, chosen.pictures, 1_000, wanted)  # drawn while the branch learns
    branch = _branch(setup, scenes)
    gallery, implants, rows = _material(setup, jobs, branch)
    seconds = max(1.0, chosen.total_s - (time.monotonic() - setup.started))
    config = DecoderConfig(vocabulary=len(setup.tokenizer.pieces), names=branch.names.out_features,
                           width=chosen.width, layers=chosen.layers)
    model = Decoder(config)
    if chosen.resume:
        model.load_state_dict(load_file(chosen.resume / "model.safetensors"))
    model.to(chosen.device)
    setup.stamp(f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} M parameters")
    learner = Learner(model, gallery, implants, setup.tower._fc.weight.detach(), rows, chosen.device)
    report["log"] = fit(learner, seconds, chosen.batch, chosen.rate * chosen.peak)
    setup.stamp("trained")
    _save(setup, model, branch, report)
    report |= _scores(setup, branch, model, implants)
    _save(setup, model, branch, report)
    setup.stamp("saved")
    setup.unseen.terminate()
    setup.seen.terminate()


if __name__ == "__main__":
    main()
