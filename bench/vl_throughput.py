"""Qwen2.5-VL with random weights: many questions on one picture, and many requests at one time, from the picture on.

    python -m bench.vl_throughput [--shape 3b,7b] [--tokens 128] [--slots 16] [--output FILE]

`--shape tiny` runs on any machine.

Seconds are medians of three after a warm-up, from patches to the last token. `8 questions`: beside eight calls of
transformers' `generate`, each of which looks. `16 at once`: threads, each with a picture of its own, or all with one
that is looked at once, beside one alone. Needs torch and transformers, nothing else.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "services"))  # where nothing is installed

from bench.gpu_vl import GRIDS, random_model
from vl_service.qwen.fast.batch import Batch, Writing
from vl_service.qwen.fast.prompt import prompt_of
from vl_service.qwen.fast.slots import Sampling, Slots
from vl_service.qwen.fast.tower import FastTower

GREEDY = Sampling(greedy=True)
QUESTIONS, AT_ONCE = 8, 16
NEVER: Any = SimpleNamespace(check=lambda: None)


class Rig:
    """One model, and both ways to ask it."""

    def __init__(self, shape: str, device: str, tokens: int, slots: int) -> None:
        tiny = shape == "tiny"
        self.tokens, self.model = tokens, random_model(device, tiny, seven=shape == "7b")
        self.model.generation_config.eos_token_id = None
        self.grid = torch.tensor([[1, *GRIDS[tiny]]])
        self._image = self.model.config.image_token_id
        with torch.inference_mode():
            rows = Slots(self.model, length=1536 + tokens if not tiny else 256 + tokens, count=slots)
            rows.warm_up()
        self._batch, self._tower = Batch(rows), FastTower(self.model.model.visual)
        self._turn, self._pictures = threading.Lock(), 0

    def picture(self) -> torch.Tensor:
        """Patches of one."""
        self._pictures += 1
        torch.manual_seed(self._pictures)
        return torch.randn(int(self.grid.prod()), 3 * 2 * 14 * 14)

    def ids(self, number: int) -> list[int]:
        words = np.random.default_rng(number).integers(0, 1000, 64).tolist()
        return [*range(20), *[self._image] * (int(self.grid.prod()) // 4), *words]

    @torch.inference_mode()
    def seen(self, picture: torch.Tensor) -> Any:
        """As of a picture that nobody has seen before."""
        with self._turn:
            embeddings = self._tower(picture.to(self.model.device, self.model.dtype), self.grid)
        return SimpleNamespace(
            embeddings=embeddings, grid_thw=self.grid, deepstack=(), names=(uuid4().hex,))

    @torch.inference_mode()
    def ours(self, seen: Any, numbers: Sequence[int]) -> list[list[int]]:
        writing = [
            Writing(prompt_of(self.ids(number), seen, image_token_id=self._image, merge=2, device=self.model.device),
                    GREEDY, seed=0, max_new_tokens=self.tokens, stop_ids=())
            for number in numbers]
        self._batch.submit(writing)
        return [[token for piece in one.pieces(NEVER) for token in piece] for one in writing]

    @torch.inference_mode()
    def theirs(self, picture: torch.Tensor, number: int) -> list[int]:
        model = self.model
        ids = torch.tensor([self.ids(number)], device=model.device)
        model.model.rope_deltas = None
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=picture.to(model.device, model.dtype),
            image_grid_thw=self.grid.to(model.device), mm_token_type_ids=(ids == self._image).int(),
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
    pictures = [rig.picture() for _ in range(AT_ONCE)]

    def at_once(count: int, *, same: bool) -> None:
        one = rig.seen(pictures[0]) if same else None  # as the cache of features has it for the others

        def ask(number: int) -> list[list[int]]:
            return rig.ours(one or rig.seen(pictures[number]), [number])

        with ThreadPoolExecutor(count) as pool:
            said = list(pool.map(ask, range(count)))
        assert all(len(tokens) == rig.tokens for [tokens] in said)

    def questions() -> None:
        rig.ours(rig.seen(pictures[0]), range(QUESTIONS))

    def by_generate() -> None:
        for number in range(QUESTIONS):
            rig.theirs(pictures[0], number)

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
    [first], second = rig.ours(rig.seen(pictures[0]), [3]), rig.theirs(pictures[0], 3)
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
