"""Teaches one branch of the ImageNet tower on drawings, and tells how well it names those that it has not seen.

    PYTHONPATH=services:. python -m training.vl.branches --seed 1 --out runs/branch-1.safetensors   # one H200, 15 min

Several of them, each with a seed and a device of its own, answer together: `training.vl.train --branches`.
Reads `training/data/vl` (`python -m training.vl.pack`); writes float16.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.vl.drawings import RECOLOURED, Drawings, named_concepts, own_files
from training.vl.openclipart import ORIGIN
from training.vl.others import load_others
from training.vl.stage import SCENES, Stage, open_stage
from training.vl.teach_branch import named_right, surenesses, teach
from vl_service.branch import Branch

BATCHES = 12  # that a share of the named is counted over
SURE = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=840, help="teach for so long")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--joined", type=float, default=0.3, help="share of the things put together of two")
    parser.add_argument("--recoloured", type=float, default=RECOLOURED, help="share of the things whose hue is turned")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _report(stage: Stage, branch: Branch, scenes: torch.Tensor, fresh_others: list[list[str]], size: int) -> None:
    named = [stage.concepts[at] for at in named_concepts(stage.concepts)]
    fresh = [sorted({*concept.files} - {*own_files(concept)}) for concept in named]
    for name, files in (
        ("as taught", [own_files(concept) for concept in named]),
        ("kept back", fresh),
        ("kept back, clip-art", [[file for file in some if ORIGIN in file] for some in fresh]),
        ("held out", [list(concept.held_files) for concept in named]),
    ):
        right = named_right(stage.tower, branch, Drawings(stage.stock, files, scenes), BATCHES, size)
        stage.stamp(f"{sum(map(len, files))} drawings {name}: {right:.1%} named by the branch")
    held = [list(concept.files) for concept in stage.concepts if concept.role == "held"]
    for name, files in (("kept back without a name", fresh_others), ("of things held out", held)):
        some = surenesses(stage.tower, branch, Drawings(stage.stock, files, scenes), BATCHES, size)
        stage.stamp(f"{sum(map(len, files))} drawings {name}: {(some > SURE).float().mean():.1%} named surely")


def main() -> None:
    """Teach, tell and write."""
    chosen = _arguments()
    stage = open_stage(chosen.data, chosen.workers, chosen.device)
    scenes = stage.scenes(chosen.scenes)
    named = [stage.concepts[at] for at in named_concepts(stage.concepts)]
    torch.manual_seed(chosen.seed)
    branch = Branch(stage.tower, len(named) + 1).float().requires_grad_(True).to(chosen.device)
    own = Drawings(stage.stock, [own_files(concept) for concept in named], scenes, others=load_others(chosen.data)[0],
                   kinds=[concept.kind_en for concept in named], joined=chosen.joined, recoloured=chosen.recoloured)
    branch = teach(stage.tower, branch, own, chosen.seconds, batch=chosen.batch, say=stage.stamp)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
               for name, value in branch.state_dict().items()}, chosen.out)
    if chosen.device == "cuda":
        branch = branch.half()
    _report(stage, branch, scenes, list(load_others(chosen.data)[1].values()), chosen.batch)
    stage.close()


if __name__ == "__main__":
    main()
