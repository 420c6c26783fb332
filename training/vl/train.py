"""Trains the embedded vision-language checkpoint's decoder: on pictures that the frozen tower and its branches for
drawings look at, implants, and texts about both.

    PYTHONPATH=services:. python -m training.vl.train --branches runs/branch-*.safetensors --out OUT  # one H200, 10 min
    PYTHONPATH=services:. python -m training.vl.thresholds --model OUT    # then, on any machine

Reads `training/data/vl` (`python -m training.vl.pack`) and what `training.vl.branches` wrote. Writes in eight bits
model.safetensors and branches.safetensors, besides vocabulary.json, config.json and training.json: losses, and how much
of the record is right on pictures that training never saw.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.vl.gather import Drawn, Gallery, Wanted, gather
from training.vl.implants import Implants, make_implants
from training.vl.learner import Learner, fit
from training.vl.pictures.concepts import load_concepts
from training.vl.pictures.drawings import named_concepts
from training.vl.scoring import records, score
from training.vl.stage import Stage, open_stage
from training.vl.subjects import Rows, all_subjects, share_words, write_rows
from training.vl.texts.rows import ROW
from training.vl.texts.truths import sight_of_cutout
from training.vl.texts.vocabulary import vocabulary_pieces
from vl_service.embedded.model.decoder import Decoder, DecoderConfig
from vl_service.embedded.model.eight_bits import packed, unpacked
from vl_service.embedded.model.tokens import Tokenizer, make_tokenizer, save_tokenizer
from vl_service.embedded.vision.branch import Branch, Branches, start_of
from vl_service.embedded.vision.kinds import vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the decoder's training works with."""

    chosen: argparse.Namespace
    stage: Stage
    tokenizer: Tokenizer
    branches: Branches


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--branches", type=Path, nargs="+", required=True, help="the first one's features are read too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="a checkpoint of the same names and words to go on from")
    parser.add_argument("--pictures", type=int, default=44_032)
    parser.add_argument("--implants", type=float, default=1.1, help="as a multiple of the pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--redrawn", type=float, default=0.0, help="share of the drawings turned, tinted or cut")
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


def _save(setup: Setup, model: Decoder, report: dict[str, object]) -> None:
    out, concepts = setup.chosen.out, setup.stage.concepts
    out.mkdir(parents=True, exist_ok=True)
    save_file(packed(model.state_dict()), out / "model.safetensors")
    save_file(packed(setup.branches.state_dict()), out / "branches.safetensors")
    save_tokenizer(setup.tokenizer, out / "vocabulary.json")
    apart = [concepts[at] for at in named_concepts(concepts)]
    told = {"called": [one.en if one.role == "known" else "" for one in apart], "kinds": [one.kind_en for one in apart]}
    (out / "config.json").write_text(json.dumps(model.config.as_dict() | told) + "\n", "utf-8")
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _set_up(chosen: argparse.Namespace) -> Setup:
    concepts = load_concepts(chosen.data / "concepts.json")
    tokenizer = make_tokenizer(vocabulary_pieces(concepts))
    vocabulary()
    share_words(tokenizer, concepts)  # with the workers, before they are forked
    stage = open_stage(chosen.data, chosen.workers, chosen.device)
    torch.manual_seed(0)
    names = len(named_concepts(concepts)) + 1
    weights = [load_file(file) for file in chosen.branches]
    branches = Branches(Branch(stage.tower, names, start_of(stage.tower, some)) for some in weights)
    for branch, some in zip(branches, weights, strict=True):
        branch.load_state_dict(some)
    branches = branches.eval().requires_grad_(False).to(chosen.device)
    if chosen.device == "cuda":
        branches = branches.half()
    stage.stamp(f"{len(tokenizer.pieces)} pieces, {len(concepts)} concepts, {len(branches)} branches")
    return Setup(chosen=chosen, stage=stage, tokenizer=tokenizer, branches=branches)


def _material(setup: Setup, jobs: Iterator[Drawn | None]) -> tuple[Gallery, Implants, Rows]:
    """Pictures, classes added to scenes of them, and the rows about both."""
    chosen, stage = setup.chosen, setup.stage
    gallery = gather(jobs, stage.tower, setup.branches, chosen.device, chosen.pictures, chosen.gather_s)
    stage.stamp(f"{len(gallery.truths)} pictures")
    weight_KC, number = stage.tower._fc.weight.detach(), int(len(gallery.truths) * chosen.implants)
    implants = make_implants(gallery, weight_KC, number, random.Random(2))
    stage.stamp("implants")
    subjects, pictures, additions = all_subjects(gallery, implants)
    stage.stamp("subjects")
    rows = write_rows(stage.seen, subjects, pictures, additions, chosen.repeats, 3, chosen.device)
    stage.stamp(f"{len(rows.tokens)} rows of {ROW}, {float((rows.segments >= 0).float().mean()):.2f} full")
    return gallery, implants, rows


def _scores(setup: Setup, model: Decoder, implants: Implants) -> dict[str, object]:
    """Shares of the record that are right, on pictures as trained and as never trained."""
    found: dict[str, object] = {}
    chosen, stage = setup.chosen, setup.stage
    for name, source, wanted in (
        ("as trained", stage.seen, Wanted(roles=("known",))),
        ("new combinations", stage.unseen, Wanted(roles=("known",), novelty="combination")),
        ("new drawings", stage.unseen, Wanted(roles=("known",), novelty="drawing")),
        ("strange kinds", stage.unseen, Wanted(roles=("held",))),
    ):
        jobs = stage.drawn(source, chosen.unseen, 900_000, wanted)
        unseen = gather(jobs, stage.tower, setup.branches, chosen.device, chosen.unseen, 600)
        pictures = torch.arange(len(unseen.truths), device=chosen.device)
        said = records(model, unseen, implants, stage.tower._fc.weight.detach(), pictures, setup.tokenizer)
        sights = [sight_of_cutout(stage.concepts[truth.concept], truth, unseen.facts[number])
                  for number, truth in enumerate(unseen.truths)]
        found[name] = score(said, sights)
        stage.stamp(f"{name}: {found[name]}")
    return found


def main() -> None:
    """Run every stage and write the weights, before they are scored and after."""
    chosen = _arguments()
    report: dict[str, object] = {"arguments": {key: str(value) for key, value in vars(chosen).items()}}
    setup = _set_up(chosen)
    stage = setup.stage
    jobs = stage.drawn(stage.seen, chosen.pictures, 1_000,
                       Wanted(roles=("known", "strange"), empty=14, redrawn=chosen.redrawn))
    gallery, implants, rows = _material(setup, jobs)
    config = DecoderConfig(vocabulary=len(setup.tokenizer.pieces), names=len(named_concepts(stage.concepts)) + 1,
                           width=chosen.width, layers=chosen.layers)
    model = Decoder(config)
    if chosen.resume:
        model.load_state_dict(unpacked(load_file(chosen.resume / "model.safetensors")))
    model.to(chosen.device)
    stage.stamp(f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} M parameters")
    learner = Learner(model, gallery, implants, stage.tower._fc.weight.detach(), rows, chosen.device)
    seconds = max(1.0, chosen.total_s - (time.monotonic() - stage.started))
    report["log"] = fit(learner, seconds, chosen.batch, chosen.peak)
    stage.stamp("trained")
    _save(setup, model, report)
    report |= _scores(setup, model, implants)
    _save(setup, model, report)
    stage.stamp("saved")
    stage.close()


if __name__ == "__main__":
    main()
