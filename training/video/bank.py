"""The ingredients on the training device: photograph canvases and cut-outs, cropped and scaled ahead of time."""

import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CANVAS_PX = 512
CUTOUT_PX = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Pictures as uint8 tensors on one device.

    `canvases` [N, 3, 512, 512]; `small` [N, 3, 256, 256], the same at half size; `cutouts` [M, 4, 192, 192] RGBA
    with straight alpha; `names` holds the M English captions of the cut-outs.
    """

    canvases: torch.Tensor
    small: torch.Tensor
    cutouts: torch.Tensor
    names: list[str]


def _crops(job: tuple[str, int, int]) -> np.ndarray:
    """Cut `count` random squares from one photograph, made smaller where it is large enough."""
    path, count, seed = job
    rng = random.Random(seed)
    picture = Image.open(path).convert("RGB")
    crops = []
    for _ in range(count):
        short = min(picture.size)
        smallest = min(short, round(1.25 * CANVAS_PX))  # at their own size most photographs are soft
        side = round(smallest * (short / smallest) ** rng.random())
        left, top = rng.randint(0, picture.width - side), rng.randint(0, picture.height - side)
        crop = picture.crop((left, top, left + side, top + side))
        crops.append(np.asarray(crop.resize((CANVAS_PX, CANVAS_PX), Image.Resampling.LANCZOS)))
    return np.stack(crops)


def _cutout(path: str) -> np.ndarray:
    picture = Image.open(path).convert("RGBA")
    picture.thumbnail((CUTOUT_PX, CUTOUT_PX), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (CUTOUT_PX, CUTOUT_PX), (0, 0, 0, 0))
    canvas.paste(picture, ((CUTOUT_PX - picture.width) // 2, (CUTOUT_PX - picture.height) // 2))
    return np.asarray(canvas)


def load_bank(pack: Path, device: str, num_canvases: int, workers: int = 16, seed: int = 0) -> Bank:
    """Read `pack/index.json` and its files; a photograph gets crops in proportion to the root of its area."""
    index = json.loads((pack / "index.json").read_text())
    photos = [row for row in index if row["kind"] == "photo"]
    cut = [row for row in index if row["kind"] != "photo"]
    # A photograph smaller than a canvas is enlarged, and soft: few of those.
    weights = [math.sqrt(p["width"] * p["height"]) * (0.4 if min(p["width"], p["height"]) < 400 else 1) for p in photos]
    counts = [max(1, round(num_canvases * weight / sum(weights))) for weight in weights]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            (str(pack / photo["file"]), count, seed + index)
            for index, (photo, count) in enumerate(zip(photos, counts, strict=True))
        ]
        crops = np.concatenate(list(pool.map(_crops, jobs)))
        cutouts = np.stack(list(pool.map(_cutout, [str(pack / row["file"]) for row in cut], chunksize=32)))
    canvases = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous().to(device)
    small = torch.cat([
        torch.nn.functional.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in canvases.split(256)
    ])
    return Bank(
        canvases=canvases, small=small, names=[row["caption"] for row in cut],
        cutouts=torch.from_numpy(cutouts).permute(0, 3, 1, 2).contiguous().to(device),
    )
