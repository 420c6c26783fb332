"""Teaches branches of the ImageNet tower on drawings, and tells how well they name those that they have not seen.

    PYTHONPATH=services:. python -m training.vl.branches --starts 4 11 --out runs/branches      # one H200, 25 min

All of them see the same pictures, which are the greater part of the work, and answer together:
`training.vl.train --branches`. Reads `training/data/vl` (`python -m training.vl.pack`); writes float16, a file each.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.vl.pictures.drawings import RECOLOURED, Drawings, named_concepts, own_files
from training.vl.pictures.openclipart import ORIGIN
from training.vl.pictures.others import load_others
from training.vl.stage import SCENES, Stage, open_stage
from training.vl.teach_branch import go_on_from, named_right, surenesses, teach
from vl_service.embedded.model.eight_bits import unpacked
from vl_service.embedded.vision.branch import EARLY, LATE, Branch, Branches

BATCHES = 12  # that a share of the named is counted over
SURE = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--starts", type=int, nargs="+", choices=(EARLY, LATE), default=[EARLY, LATE],
                        help="the first block that each branch has of its own")
    parser.add_argument("--resume", type=Path, nargs="+", default=[], help="what each goes on from; from a late one an "
                        "early one does with the tower's blocks in between")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the usual learning rate, to go on with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1400, help="teach for so long")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--joined", type=float, default=0.3, help="share of the things put together of two")
    parser.add_argument("--recoloured", type=float, default=RECOLOURED, help="share of the things whose hue is turned")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _report(stage: Stage, who: str, branches: Branches, scenes: torch.Tensor, fresh_others: list[list[str]],
            size: int) -> None:
    named = [stage.concepts[at] for at in named_concepts(stage.concepts)]
    fresh = [sorted({*concept.files} - {*own_files(concept)}) for concept in named]
    for name, files in (
        ("as taught", [own_files(concept) for concept in named]),
        ("kept back", fresh),
        ("kept back, clip-art", [[file for file in some if ORIGIN in file] for some in fresh]),
        ("held out", [list(concept.held_files) for concept in named]),
    ):
        right = named_right(stage.tower, branches, Drawings(stage.stock, files, scenes), BATCHES, size)
        stage.stamp(f"{who}: {sum(map(len, files))} drawings {name}: {right:.1%} named")
    held = [list(concept.files) for concept in stage.concepts if concept.role == "held"]
    for name, files in (("kept back without a name", fresh_others), ("of things held out", held)):
        some = surenesses(stage.tower, branches, Drawings(stage.stock, files, scenes), BATCHES, size)
        stage.stamp(f"{who}: {sum(map(len, files))} drawings {name}: {(some > SURE).float().mean():.1%} named surely")


def main() -> None:
    """Teach, write and tell."""
    chosen = _arguments()
    stage = open_stage(chosen.data, chosen.workers, chosen.device)
    scenes = stage.scenes(chosen.scenes)
    named = [stage.concepts[at] for at in named_concepts(stage.concepts)]
    torch.manual_seed(chosen.seed)
    branches = [Branch(stage.tower, len(named) + 1, start).float().to(chosen.device)
                for start in chosen.starts]
    for branch, file in zip(branches, chosen.resume, strict=bool(chosen.resume)):
        go_on_from(branch, unpacked(load_file(file)), stage.tower)
    own = Drawings(stage.stock, [own_files(concept) for concept in named], scenes, others=load_others(chosen.data)[0],
                   kinds=[concept.kind_en for concept in named], joined=chosen.joined, recoloured=chosen.recoloured)
    taught = teach(stage.tower, branches, own, chosen.seconds, batch=chosen.batch, rate=chosen.rate, say=stage.stamp)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for number, branch in enumerate(taught):
        save_file({name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
                   for name, value in branch.state_dict().items()}, chosen.out / f"branch-{number}.safetensors")
    if chosen.device == "cuda":
        taught = [branch.half() for branch in taught]
    fresh_others = list(load_others(chosen.data)[1].values())
    apart = [(f"branch {number}", [branch]) for number, branch in enumerate(taught)]
    for who, some in [*apart, *[("together", taught)] * (len(taught) > 1)]:
        _report(stage, who, Branches(some), scenes, fresh_others, chosen.batch)
    stage.close()


if __name__ == "__main__":
    main()
