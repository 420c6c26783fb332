"""Qwen2.5-VL with random weights: many questions on one picture, and many requests at one time, from the picture on.

    python -m bench.vl_throughput [--shape 3b,7b] [--tokens 128] [--slots 16] [--output FILE]

`--shape tiny` runs on any machine.

Seconds are medians of three after a warm-up. `8 questions`: beside eight calls of transformers' `generate`, each of
which looks. `16 at once`: threads that each look at a picture, their own or the same, beside one alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "services"))  # where nothing is installed

from transformers import Qwen2VLImageProcessorPil

from bench.gpu_vl import random_model
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.cached import CachedVision
from vl_service.qwen.checkpoint import Checkpoint
from vl_service.qwen.fast.slots import Sampling
from vl_service.qwen.fast.writing import Ask, Generate, SlotWriter
from vl_service.qwen.features import Features, Vision
from vl_service.qwen.looking import in_windows
from vl_service.qwen.tower import tower_of
from vl_service.qwen.vision import TorchVision
from vl_service.settings import Settings

GREEDY = Sampling(greedy=True)
QUESTIONS, AT_ONCE = 8, 16


class Rig:
    """One model, and both ways to ask it."""

    def __init__(self, shape: str, device: str, tokens: int, slots: int) -> None:
        tiny = self.tiny = shape == "tiny"
        self.tokens = tokens
        model = random_model(device, tiny, seven=shape == "7b")
        model.generation_config.eos_token_id = None
        self.processor = Qwen2VLImageProcessorPil(
            patch_size=14, size={"shortest_edge": 28**2, "longest_edge": (64 if tiny else 1280) * 28**2})
        self.checkpoint = Checkpoint(
            model=model, tokenizer=None, image_processor=self.processor, id=shape, family="Qwen2.5-VL",
            revision="random", tower_revision="random", device=model.device, dtype=model.dtype,
            image_token_id=model.config.image_token_id)
        self.plain = Generate(self.checkpoint, GREEDY)
        length = (64 if tiny else 1280) + 256 + tokens
        self.writer = SlotWriter(self.checkpoint, GREEDY, self.plain, length=length, slots=slots)
        tower = tower_of(self.checkpoint, image_tokens=1280)
        seeing = TorchVision(tower, fast=in_windows(tower))
        self.vision: Vision = CachedVision(seeing, tower.expected, tower.device, Settings())
        self._pictures = np.random.default_rng(0)

    def picture(self) -> DecodedImage:
        """One that nobody has seen; 1,196 tokens."""
        height, width = (112, 168) if self.tiny else (728, 1288)
        shades = self._pictures.integers(0, 255, (height // 28, width // 28, 3), dtype=np.uint8)
        return DecodedImage(rgb=Image.fromarray(shades).resize((width, height)), width=width, height=height)

    def ids(self, number: int, picture_tokens: int) -> list[int]:
        words = np.random.default_rng(number).integers(0, 1000, 64).tolist()
        return [*range(20), *[self.checkpoint.image_token_id] * picture_tokens, *words]

    def ask(self, number: int, seen: Features) -> Ask:
        return Ask(ids=self.ids(number, seen.num_tokens), seed=0, max_new_tokens=self.tokens)

    def ours(self, picture: DecodedImage, numbers: Sequence[int]) -> list[list[int]]:
        seen, never = self.vision.features_of(picture), Deadline(at=float("inf"))
        return self.writer.write(seen, [self.ask(number, seen) for number in numbers], never)

    @torch.inference_mode()
    def theirs(self, picture: DecodedImage, number: int) -> list[int]:
        model = self.checkpoint.model
        pixels = self.processor(images=[picture.rgb], return_tensors="pt").to(model.device)
        ids = torch.tensor([self.ids(number, int(pixels.image_grid_thw.prod()) // 4)], device=model.device)
        model.model.rope_deltas = None
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels.pixel_values.to(model.dtype),
            image_grid_thw=pixels.image_grid_thw, mm_token_type_ids=(ids == model.config.image_token_id).int(),
            max_new_tokens=self.tokens, do_sample=False)
        return written[0, ids.shape[1]:].tolist()


def seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    run()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return median(taken)


def rows_of(rig: Rig) -> dict[str, Any]:
    """Each row's seconds, and what is said of it."""
    def at_once(count: int, *, same: bool) -> None:
        one = rig.picture()
        pictures = [one if same else rig.picture() for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            said = list(pool.map(lambda number: rig.ours(pictures[number], [number]), range(count)))
        assert all(len(tokens) == rig.tokens for [tokens] in said)

    def questions() -> None:
        rig.ours(rig.picture(), range(QUESTIONS))

    def by_generate() -> None:
        picture = rig.picture()
        for number in range(QUESTIONS):
            rig.theirs(picture, number)

    theirs, ours = seconds(by_generate, 1), seconds(questions)
    alone = seconds(lambda: at_once(1, same=True))
    rows: dict[str, Any] = {
        f"{QUESTIONS} questions": {"generate_s": theirs, "ours_s": ours, "times": theirs / ours},
        "1 alone": {"seconds": alone, "tokens_per_s": rig.tokens / alone},
    }
    for name, same in (("own pictures", False), ("one picture", True)):
        taken = seconds(lambda same=same: at_once(AT_ONCE, same=same))
        rows[f"{AT_ONCE} at once, {name}"] = {
            "seconds": taken, "tokens_per_s": AT_ONCE * rig.tokens / taken, "times": AT_ONCE * alone / taken}
    picture = rig.picture()
    [first], second = rig.ours(picture, [3]), rig.theirs(picture, 3)
    differ = (at for at, pair in enumerate(zip(first, second, strict=True)) if len(set(pair)) > 1)
    rows["agreed"] = {"tokens": next(differ, len(first))}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="3b", help="of 3b, 7b, tiny; several with commas")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--slots", type=int, default=AT_ONCE)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "tokens": asked.tokens}
    for shape in asked.shape.split(","):
        rig = Rig(shape, device, asked.tokens, asked.slots)
        found[shape] = rows_of(rig)
        for name, row in found[shape].items():
            print(f"{shape:5} {name:28}", {key: round(value, 3) for key, value in row.items()}, flush=True)
        del rig
        torch.cuda.empty_cache()
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
