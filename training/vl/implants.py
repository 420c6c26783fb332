"""Every ImageNet class made sayable without pictures of it: the class is added to a scene's tower features.

The positive part of the classifier's own weights is added around a chosen place, strongly enough for a chosen
probability; related classes rise with it, as they do when the tower looks at a real thing. Often a second class is
mixed in, which is how the decoder learns where to be unsure.
"""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from training.vl.gather import Gallery
from vl_service.embedded.model.decoder import ImageTokens
from vl_service.embedded.vision.features import GRID, box_levels, class_tokens
from vl_service.embedded.vision.kinds import vocabulary

STEPS = 48
STRONGEST = 6.0
MISTAKEN_SHARE = 0.25  # of implants: the branch sees some drawn thing there, for it may take a photograph for a drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Implants:
    """One row each: which scene, what is added, where and how strongly. Tensors lie on the device."""

    bases: Tensor
    first: Tensor
    second: Tensor
    mix: Tensor
    strength: Tensor
    close_gain: Tensor
    places_M3: Tensor
    """Centre x, y and spread in 0..1."""
    probabilities_MK: Tensor
    """Mean of both looks, float32 on the CPU."""


def _bases(gallery: Gallery) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"indoors": [], "outdoors": [], "under water": [], "unclear": []}
    for number, truth in enumerate(gallery.truths):
        if truth.concept < 0:
            found[truth.setting].append(number)
    return found


def make_implants(gallery: Gallery, weight_KC: Tensor, number: int, rng: random.Random) -> Implants:
    """Draw `number` of them, every class equally often."""
    device, scenes = weight_KC.device, _bases(gallery)
    kinds = vocabulary().kind_of
    first = [position % 1000 for position in range(number)]
    fitting = {
        "in": scenes["indoors"] + scenes["unclear"],
        "out": scenes["outdoors"] + scenes["unclear"],
        "water": scenes["outdoors"] + scenes["under water"] + scenes["unclear"],
        "any": [number for some in scenes.values() for number in some],
    }
    anywhere = fitting["any"]
    bases = torch.tensor([rng.choice(fitting[kinds[c].place] or anywhere) for c in first], device=device)
    near_KN = (
        (torch.nn.functional.normalize(weight_KC, dim=1) @ torch.nn.functional.normalize(weight_KC, dim=1).T)
        .topk(12, dim=1)
        .indices.cpu()
    )
    second = torch.tensor(
        [int(near_KN[c, rng.randrange(1, 12)]) if rng.random() < 0.5 else rng.randrange(1000) for c in first]
    )
    mix = torch.tensor([rng.uniform(0.3, 1.0) if rng.random() < 0.4 else 0.0 for _ in first])
    target = torch.tensor([rng.uniform(0.5, 0.97) if rng.random() < 0.65 else rng.uniform(0.05, 0.5) for _ in first])
    gain = torch.tensor([rng.uniform(0.8, 1.8) for _ in first])
    places = torch.tensor([[rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.4)] for _ in first])
    first_t, second_t, mix, target, gain = (
        value.to(device) for value in (torch.tensor(first), second, mix, target, gain)
    )
    strength, probabilities = _strengths(gallery, weight_KC, bases, first_t, second_t, mix, gain, target)
    return Implants(
        bases=bases,
        first=first_t,
        second=second_t,
        mix=mix,
        strength=strength,
        close_gain=gain,
        places_M3=places.to(device),
        probabilities_MK=probabilities,
    )


def _strengths(
    gallery: Gallery,
    weight_KC: Tensor,
    bases: Tensor,
    first: Tensor,
    second: Tensor,
    mix: Tensor,
    gain: Tensor,
    target: Tensor,
) -> tuple[Tensor, Tensor]:
    positive = weight_KC.float().clamp(min=0)
    raise_KK = weight_KC.float() @ positive.T  # logits of every class (row) per unit of a class (column)
    amounts = torch.linspace(0.05, STRONGEST, STEPS, device=weight_KC.device)
    strengths, probabilities = [], []
    for rows in torch.arange(len(bases), device=bases.device).split(512):
        change = raise_KK[:, first[rows]].T + mix[rows, None] * raise_KK[:, second[rows]].T
        whole, close = gallery.whole_NK[bases[rows]].float(), gallery.close_NK[bases[rows]].float()
        best = torch.full((len(rows),), math.inf, device=bases.device)
        chosen, kept = torch.zeros_like(best), torch.zeros_like(change)
        for amount in amounts:
            mean = (
                (whole + amount * change).softmax(-1) + (close + amount * gain[rows, None] * change).softmax(-1)
            ) / 2
            miss = (mean.gather(1, first[rows, None])[:, 0] - target[rows]).abs()
            better = miss < best
            best, chosen = torch.where(better, miss, best), torch.where(better, amount, chosen)
            kept = torch.where(better[:, None], mean, kept)
        strengths.append(chosen)
        probabilities.append(kept.cpu())
    return torch.cat(strengths), torch.cat(probabilities)


def image_tokens(
    gallery: Gallery, implants: Implants, weight_KC: Tensor, pictures: Tensor, additions: Tensor
) -> ImageTokens:
    """What the decoder reads for rows: `pictures` number the gallery, `additions` the implants or are -1."""
    grid, crop = gallery.grid_NPC[pictures].float(), gallery.crop_NC[pictures].float()
    whole, close = gallery.whole_NK[pictures].float(), gallery.close_NK[pictures].float()
    boxes, slots = gallery.boxes_N3[pictures], gallery.slots_NS[pictures].clone()
    rows = (additions >= 0).nonzero()[:, 0]
    which = additions[rows]
    positive = weight_KC.float().clamp(min=0)
    added = positive[implants.first[which]] + implants.mix[which, None] * positive[implants.second[which]]
    added = added * implants.strength[which, None]
    close_added = added * implants.close_gain[which, None]
    place = implants.places_M3[which]
    grid[rows] += _blob(place)[:, :, None] * added[:, None, :]
    crop[rows] += close_added
    whole[rows] += added @ weight_KC.float().T
    close[rows] += close_added @ weight_KC.float().T
    boxes = boxes.clone()
    boxes[rows] = torch.stack([place[:, 0], place[:, 1], (place[:, 2] * 2 + 0.15).clamp(0.35, 0.95)], 1).to(boxes.dtype)
    slots[:, -3:] = box_levels(boxes)
    shown = pictures.clone()
    taken = rows[torch.rand(len(rows), device=rows.device) < MISTAKEN_SHARE]
    shown[taken] = torch.randint(len(gallery.truths), (len(taken),), device=rows.device)
    classes, levels = class_tokens(whole, close)
    return ImageTokens(
        grid_BPC=grid,
        crop_BC=crop,
        thumbnails_B3HW=gallery.thumbnails_N3HW[pictures],
        classes_BN=classes,
        levels_BN=levels,
        slots_BS=slots,
        drawn_B2C=gallery.drawn_N2C[shown].float(),
        names_BM=gallery.names_NM[shown],
        name_levels_BM=gallery.name_levels_NM[shown],
        where_BP=gallery.where_NP[shown].float(),
    )


def _blob(places_M3: Tensor) -> Tensor:
    """Where an implant lies on the grid, `[M, 81]`, mean one."""
    centres = (torch.arange(GRID, device=places_M3.device) + 0.5) / GRID
    across = torch.exp(-((centres - places_M3[:, :1]) ** 2) / (2 * places_M3[:, 2:] ** 2))
    down = torch.exp(-((centres - places_M3[:, 1:2]) ** 2) / (2 * places_M3[:, 2:] ** 2))
    blob = (down[:, :, None] * across[:, None, :]).flatten(1)
    return blob / blob.mean(1, keepdim=True)
