"""What every stage of the vision-language training starts from: the pack, workers that draw, and the frozen tower."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file
from torch import Tensor

from training.vl.gather import Drawn, Wanted, draw, make_pool, share_stock
from training.vl.pictures.compose import Stock, load_stock
from training.vl.pictures.concepts import Concept, load_concepts
from training.vl.pictures.others import as_concepts, load_others

JOB = 64  # pictures a job of a worker
SCENES = 4096  # that the branches see drawings on


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`seen` and `unseen` are workers with the backgrounds of training and of evaluation."""

    started: float
    concepts: list[Concept]
    stock: Stock
    seen: Pool
    unseen: Pool
    tower: EfficientNet
    device: str

    def stamp(self, what: object) -> None:
        """Say what was reached, and when."""
        print(f"{time.monotonic() - self.started:6.1f} s  {what}", flush=True)

    def drawn(self, pool: Pool, pictures: int, seed: int, wanted: Wanted) -> Iterator[Drawn | None]:
        """Pictures that the workers draw, from now on, by the job."""
        size = min(JOB, pictures)
        return pool.imap_unordered(
            draw, [replace(wanted, seed=seed + number, pictures=size) for number in range(pictures // size)])

    def scenes(self, number: int) -> Tensor:
        """Pictures without a cut-out on the device, uint8 `[N, 3, 320, 320]`."""
        jobs = self.drawn(self.seen, min(SCENES, number), 500_000, Wanted(roles=("known",), empty=JOB))
        scenes = torch.from_numpy(np.concatenate([drawn.squares_BHW3 for drawn in jobs if drawn]))
        self.stamp(f"{len(scenes)} scenes")
        return scenes.permute(0, 3, 1, 2).contiguous().to(self.device)

    def close(self) -> None:
        """Let the workers go."""
        self.unseen.terminate()
        self.seen.terminate()


def open_stage(data: Path, workers: int, device: str) -> Stage:
    """Read the pack, fork the workers and load the tower."""
    started = time.monotonic()
    concepts = load_concepts(data / "concepts.json")
    nameless = [concept for part in load_others(data) for concept in as_concepts(part)]
    context = multiprocessing.get_context("fork")
    others = load_stock(data, concepts + nameless, evaluation=True)
    share_stock(replace(others, concepts=tuple(concepts)))
    unseen = make_pool(context, max(1, workers // 4))
    stock = load_stock(data, concepts, evaluation=False, cutouts=others.cutouts)
    share_stock(stock)
    seen = make_pool(context, workers)
    return Stage(started=started, concepts=concepts, stock=stock, seen=seen, unseen=unseen,
                 tower=load_tower(data / "tower.safetensors", device), device=device)


def load_tower(file: Path, device: str) -> EfficientNet:
    """The frozen tower, from weights in half precision."""
    tower = EfficientNet.from_name("efficientnet-lite2")
    tower.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    )
    tower = tower.eval().requires_grad_(False).to(device)
    return tower.half().to(memory_format=torch.channels_last) if device == "cuda" else tower
