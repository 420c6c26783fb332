"""Teaches a branch to count what is drawn, and to mark it on the fine grid; all else in it stays as it is.

    PYTHONPATH=services:. python -m training.vl.teach_map --model models/vl     # eight minutes on two cores

What a thing is has no say in this, so that a thing in a number that training never shows is counted like any other.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.vl.compose import Stock, compose, load_stock
from training.vl.concepts import load_concepts
from training.vl.drawings import Composed, Drawings, named_concepts, own_files
from vl_service.branch import Branch, Drawn, shared
from vl_service.embedded_checkpoint import BRANCH
from vl_service.tower import ImageNetTower

PARTS = ("near", "far", "join", "map")
BATCH, SCENES = 48, 256
AT_ONCE = 4  # pictures that the blocks look at; with more they leave the caches, and each takes three times as long
REPLAYED = 4  # steps on remembered pictures for each on new ones
RATE, WARM = 2e-3, 20  # new pictures are drawn so often before the rate is reached
MIDDLES_WEIGHT, NUMBER_WEIGHT = 2.0, 0.3


def load_branch(file: Path, tower: Any) -> Branch:
    """A branch in float32; the parts that are taught here may be absent."""
    weights = load_file(file)
    branch = Branch(tower, len(weights["names.weight"]))
    absent, _ = branch.load_state_dict({name: value.float() if value.is_floating_point() else value
                                        for name, value in weights.items()}, strict=False)
    if unknown := [name for name in absent if name.partition(".")[0] not in PARTS]:
        raise ValueError(f"{file} lacks {', '.join(unknown)}")
    return branch.eval().requires_grad_(False)


def loss_of(drawn: Drawn, covered_BHW: Tensor, middles_BHW: Tensor) -> Tensor:
    """How far both maps, and the number, are from the truth."""
    number_BHW = drawn.number_BHW.float()
    near = (number_BHW - middles_BHW).square().sum((1, 2)).mean()
    number = F.smooth_l1_loss(number_BHW.sum((1, 2)), middles_BHW.sum((1, 2)), beta=0.5)
    place = F.binary_cross_entropy_with_logits(drawn.covered_BHW.float(), covered_BHW)
    return place + MIDDLES_WEIGHT * near + NUMBER_WEIGHT * number


def teach(tower: Any, branch: Branch, drawings: Drawings, seconds: float) -> None:
    """So many seconds, at a rate that falls along a cosine."""
    taught = [value.requires_grad_() for part in PARTS for value in getattr(branch, part).parameters()]
    adam = torch.optim.AdamW(taught, lr=RATE, weight_decay=1e-3)
    known: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    started, chance = time.monotonic(), random.Random(0)
    while (share := (time.monotonic() - started) / seconds) < 1:
        known.append(_remembered(tower, branch, drawings.batch(BATCH)))
        for group in adam.param_groups:
            group["lr"] = RATE * min(1.0, len(known) / WARM) * (0.02 + 0.49 * (1 + float(np.cos(np.pi * share))))
        for fine, features, covered, middles in (known[-1], *(chance.choice(known) for _ in range(REPLAYED))):
            loss = loss_of(branch.marked(fine.float(), features.float()), covered, middles)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
        if len(known) % 10 == 0:
            passed = time.monotonic() - started
            print(f"{passed:6.1f} s  {len(known) * BATCH} pictures, loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def _remembered(tower: Any, branch: Branch, shown: Composed) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    seen = [branch.features(shared(tower, pixels)) for pixels in shown.pixels.split(AT_ONCE)]
    fine, features = (torch.cat(parts).half() for parts in zip(*seen, strict=True))
    return fine, features, shown.covered_BHW, shown.middles_BHW


def _scenes(stock: Stock) -> Tensor:
    squares = [compose(stock, random.Random(number), None)[0] for number in range(SCENES)]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2)


def main() -> None:
    """Teach, and write the branch anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("training/data/vl"))
    parser.add_argument("--seconds", type=float, default=480)
    options = parser.parse_args()
    torch.manual_seed(0)
    concepts = load_concepts(options.data / "concepts.json")
    stock = load_stock(options.data, concepts, evaluation=False)
    tower = ImageNetTower().model
    branch = load_branch(options.model / BRANCH, tower).to(memory_format=torch.channels_last)
    files = [own_files(concepts[at]) for at in named_concepts(concepts)]
    teach(tower, branch, Drawings(stock, files, _scenes(stock)), options.seconds)
    save_file({name: (value.half() if value.is_floating_point() else value).contiguous()
               for name, value in branch.state_dict().items()}, options.model / BRANCH)


if __name__ == "__main__":
    main()
