"""Fine-tunes branches of the tower on drawings: their names, where they are on both grids, and how many."""

import copy
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.vl.pictures.drawings import Composed, Drawings
from vl_service.embedded.vision.branch import Begun, Branch, Branches, Drawn, shared, start_of
from vl_service.embedded.vision.features import GRID

DROPPED, DROPOUT, SMOOTHING = 0.2, 0.2, 0.1
PEAK, PEAK_NEW, DECAY = 6e-4, 2e-3, 0.05
WHERE_WEIGHT, MAPS_WEIGHT = 0.5, 0.5
MIDDLES_WEIGHT, NUMBER_WEIGHT = 2.0, 0.3
NEW = ("head", "norm", "names", "where", "near", "far", "join", "map")
KEPT = 0.999  # of the average, a step
LEVELLED = 0.75  # share of what a name gains by being shown more often that is taken back (Menon et al. 2021)


def teach(
    tower: Any, branches: Sequence[Branch], drawings: Drawings, seconds: float, *, batch: int, rate: float = 1.0,
    say: Callable[[object], None] = print,
) -> list[Branch]:
    """So many seconds at a share `rate` of the usual one, which falls along a cosine, all on the same pictures.

    Returns the averaged branches, ready to look; a name that is shown more often is then not likelier for that.
    """
    device = drawings.scenes.device.type
    adam = torch.optim.AdamW([group for branch in branches for group in _groups(branch)], weight_decay=DECAY,
                             fused=device == "cuda")
    averages = [copy.deepcopy(branch).eval().requires_grad_(False) for branch in branches]
    started, step = time.monotonic(), 0
    while (share := (time.monotonic() - started) / seconds) < 1:
        fall = rate * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * share))))
        for group in adam.param_groups:
            group["lr"] = group["peak"] * fall
        shown = drawings.batch(batch)
        with torch.no_grad():
            begun = shared(tower, read(tower, shown))
        adam.zero_grad(set_to_none=True)
        losses = [_loss(branch, begun, shown, device) for branch in branches]
        torch.stack([loss for loss, _ in losses]).sum().backward()
        for branch in branches:
            nn.utils.clip_grad_norm_(branch.parameters(), 2.0)
        adam.step()
        for average, branch in zip(averages, branches, strict=True):
            _follow(average, branch, min(KEPT, (step + 1) / (step + 10)))
        step += 1
        if step % 250 == 0 or step == 1:
            told = [[round(float(value.detach()), 3) for value in pair] for pair in losses]
            say({"step": step, "seconds": round(time.monotonic() - started, 1), "loss, named": told})
    for average in averages:
        average.names.bias.sub_(LEVELLED * drawings.shown().log())
    return averages


def go_on_from(branch: Branch, weights: Mapping[str, torch.Tensor], tower: Any) -> None:
    """Give it the weights of another, which may begin later: the blocks that that one lacks stay as they are."""
    later = start_of(tower, weights) - branch.start
    own = {re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{int(found[1]) + later}", name): value
           for name, value in weights.items()}
    branch.load_state_dict(branch.state_dict() | own)


def _groups(branch: Branch) -> list[dict[str, Any]]:
    branch.train().requires_grad_(True).to(memory_format=torch.channels_last)
    new = [value for name in NEW for value in getattr(branch, name).parameters()]
    known = {id(value) for value in new}
    old = [value for value in branch.parameters() if id(value) not in known]
    return [{"params": old, "peak": PEAK}, {"params": new, "peak": PEAK_NEW}]


def _loss(branch: Branch, begun: Begun, shown: Composed, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        drawn = branch(begun, DROPPED)
        logits = branch.names(F.dropout(drawn.features_BCHW.mean((2, 3)), DROPOUT))
    name = F.cross_entropy(logits.float(), shown.targets_BN, label_smoothing=SMOOTHING)
    place = F.binary_cross_entropy_with_logits(drawn.where_BHW.float(), F.adaptive_avg_pool2d(shown.covered_BHW, GRID))
    loss = name + WHERE_WEIGHT * place + MAPS_WEIGHT * maps_loss(drawn, shown.covered_BHW, shown.middles_BHW)
    return loss, (logits.argmax(-1) == shown.targets_BN.argmax(-1)).float().mean()


def maps_loss(drawn: Drawn, covered_BHW: torch.Tensor, middles_BHW: torch.Tensor) -> torch.Tensor:
    """How far both maps, and the number, are from the truth. What a thing is has no say in it."""
    number_BHW = drawn.number_BHW.float()
    near = (number_BHW - middles_BHW).square().sum((1, 2)).mean()
    number = F.smooth_l1_loss(number_BHW.sum((1, 2)), middles_BHW.sum((1, 2)), beta=0.5)
    place = F.binary_cross_entropy_with_logits(drawn.covered_BHW.float(), covered_BHW)
    return place + MIDDLES_WEIGHT * near + NUMBER_WEIGHT * number


def read(tower: Any, shown: Composed) -> torch.Tensor:
    """The pictures in the tower's number format."""
    return shown.pixels.to(tower._fc.weight.dtype, memory_format=torch.channels_last)  # the package's name for it


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, kept: float) -> None:
    for ours, theirs in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1 - kept)
        else:
            ours.copy_(theirs)


@torch.no_grad()
def named_right(tower: Any, branches: Branches, drawings: Drawings, batches: int, size: int) -> float:
    """Share of the pictures with something drawn on them that get their name."""
    right = total = 0
    for _ in range(batches):
        shown = drawings.batch(size)
        some = shown.labels != drawings.none
        named = branches(shared(tower, read(tower, shown))).named_BN[:, :-1].argmax(-1)
        right += int((named == shown.labels)[some].sum())
        total += int(some.sum())
    return right / max(1, total)


@torch.no_grad()
def surenesses(tower: Any, branches: Branches, drawings: Drawings, batches: int, size: int) -> torch.Tensor:
    """How probable they find their best name, of every picture with something drawn on it."""
    found = []
    for _ in range(batches):
        shown = drawings.batch(size)
        named = branches(shared(tower, read(tower, shown))).named_BN.exp()
        found.append(named[shown.labels != drawings.none, :-1].amax(-1))
    return torch.cat(found)
