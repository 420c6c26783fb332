"""Qwen2.5-VL with random weights: many questions on one picture, and many requests at one time, from the picture on.

    python -m bench.vl_throughput [--shape 3b,7b] [--tokens 128] [--slots 16] [--fp8] [--output FILE]

`--shape tiny` runs on any machine. FILE is written after each row; what a row or a shape could not do stands in its
place, and the others go on.

Seconds are medians of three after a warm-up, from patches to the last token. `8 questions`: beside eight calls of
transformers' `generate`, each of which looks, measured before our forms touch the weights. `16 at once`: threads, each
with a picture of its own, or all with one that is looked at once, beside one alone. `ready` is what our forms take to
be made and warmed up. Needs torch and transformers, nothing else.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "services"))  # where nothing is installed

from bench.gpu import commit, store
from bench.gpu_vl import GRIDS, random_model
from vl_service.qwen.fast.batch import Batch, Writing
from vl_service.qwen.fast.beside import beside
from vl_service.qwen.fast.prompt import prompt_of
from vl_service.qwen.fast.slots import Sampling, Slots
from vl_service.qwen.fast.tower import FastTower

GREEDY = Sampling(greedy=True)
QUESTIONS, AT_ONCE = 8, 16
QUESTIONS_BAR, AT_ONCE_BAR = 5, 6  # times
NEVER: Any = SimpleNamespace(check=lambda: None)
Row = dict[str, Any]


class Rig:
    """One model, and both ways to ask it."""

    def __init__(self, shape: str, device: str, tokens: int) -> None:
        self.tiny, self.tokens = shape == "tiny", tokens
        if self.tiny:
            torch.set_num_threads(1)  # on a busy machine two threads wait for one another
        self.model = random_model(device, self.tiny, seven=shape == "7b")
        self.model.generation_config.eos_token_id = None
        self.grid = torch.tensor([[1, *GRIDS[self.tiny]]])
        self._image = self.model.config.image_token_id
        self._thread = ThreadPoolExecutor(1)
        """Of the tower, as in `TorchVision`."""
        self.pictures = [self._picture(number) for number in range(AT_ONCE)]

    def make_ready(self, slots: int, *, fp8: bool) -> Row:
        """Our forms of the model, which change how its weights lie."""
        began, length = time.perf_counter(), (256 if self.tiny else 1536) + self.tokens
        with torch.inference_mode():
            rows = Slots(self.model, length=length, count=slots, fp8=fp8)
            packed = time.perf_counter()
            rows.warm_up()
        wait()
        warmed = time.perf_counter()
        self._batch, self._tower = Batch(rows), FastTower(self.model.model.visual)
        return {"packed_s": packed - began, "warmed_up_s": warmed - packed}

    def _picture(self, number: int) -> torch.Tensor:
        """Patches of one."""
        torch.manual_seed(number)
        return torch.randn(int(self.grid.prod()), 3 * 2 * 14 * 14)

    def ids(self, number: int) -> list[int]:
        words = np.random.default_rng(number).integers(0, 1000, 64).tolist()
        return [*range(20), *[self._image] * (int(self.grid.prod()) // 4), *words]

    def seen(self, picture: torch.Tensor) -> Any:
        """As of a picture that nobody has seen before."""
        return self._thread.submit(self._look, picture).result()

    @torch.inference_mode()
    def _look(self, picture: torch.Tensor) -> Any:
        with beside(self.model.device):
            embeddings = self._tower(picture.to(self.model.device, self.model.dtype), self.grid)
        return SimpleNamespace(
            embeddings=embeddings, grid_thw=self.grid, deepstack=(), names=(uuid4().hex,))

    @torch.inference_mode()
    def ours(self, seen: Any, numbers: Sequence[int]) -> list[list[int]]:
        with beside(self.model.device):
            prompts = [
                prompt_of(self.ids(number), seen, image_token_id=self._image, merge=2, device=self.model.device)
                for number in numbers]
        writing = [
            Writing(prompt, GREEDY, seed=0, max_new_tokens=self.tokens, stop_ids=()) for prompt in prompts]
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

    def at_once(self, count: int, *, same: bool) -> None:
        """So many callers; with the `same` picture as the cache of features has it for all but the first."""
        one = self.seen(self.pictures[0]) if same else None

        def ask(number: int) -> list[list[int]]:
            return self.ours(one or self.seen(self.pictures[number]), [number])

        with ThreadPoolExecutor(count) as pool:
            said = list(pool.map(ask, range(count)))
        if any(len(tokens) != self.tokens for [tokens] in said):
            raise RuntimeError("a text is too short")


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - began)
    return median(taken)


def rows_of(rig: Rig, slots: int, *, fp8: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What each row is called, and what measures it; later ones build on those before."""
    repeats, warm = (1, False) if rig.tiny else (3, True)
    found: dict[str, Any] = {}

    def timed(run: Callable[[], Any]) -> float:
        if warm:
            run()
        return seconds(run, repeats)

    def generate() -> Row:
        found["first"] = rig.theirs(rig.pictures[0], 0)
        found["theirs"] = seconds(
            lambda: [rig.theirs(rig.pictures[0], number) for number in range(QUESTIONS)], 1)
        return {"seconds": found["theirs"]}

    def questions() -> Row:
        taken = timed(lambda: rig.ours(rig.seen(rig.pictures[0]), range(QUESTIONS)))
        return {"seconds": taken, "times": found["theirs"] / taken, "bar": QUESTIONS_BAR}

    def alone() -> Row:
        found["alone"] = timed(lambda: rig.at_once(1, same=True))
        return {"seconds": found["alone"], "tokens_per_s": rig.tokens / found["alone"]}

    def together(*, same: bool) -> Row:
        taken = timed(lambda: rig.at_once(AT_ONCE, same=same))
        return {"seconds": taken, "tokens_per_s": AT_ONCE * rig.tokens / taken,
                "times": AT_ONCE * found["alone"] / taken, "bar": AT_ONCE_BAR}

    def agreed() -> Row:
        [ours] = rig.ours(rig.seen(rig.pictures[0]), [0])
        differ = (at for at, pair in enumerate(zip(ours, found["first"], strict=True)) if len(set(pair)) > 1)
        return {"tokens": next(differ, len(ours))}

    yield f"{QUESTIONS} by generate", generate
    yield "ready", lambda: rig.make_ready(slots, fp8=fp8)
    yield f"{QUESTIONS} questions", questions
    yield "1 alone", alone
    yield f"{AT_ONCE} at once, own pictures", lambda: together(same=False)
    yield f"{AT_ONCE} at once, one picture", lambda: together(same=True)
    yield "agreed", agreed


def measure(shape: str, device: str, asked: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """Each row as it stands, failures too."""
    try:
        rig = Rig(shape, device, asked.tokens)
    except Exception:
        yield "made", {"failed": traceback.format_exc()[-2000:]}
        return
    for name, row in rows_of(rig, asked.slots, fp8=asked.fp8):
        try:
            yield name, row()
        except Exception:  # the other rows still count
            yield name, {"failed": traceback.format_exc()[-2000:]}


def shown(row: Row) -> str:
    return str({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="3b", help="of 3b, 7b, tiny; several with commas")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--slots", type=int, default=AT_ONCE)
    parser.add_argument("--fp8", action="store_true", help="as VL_QUANT_LINEAR=fp8")
    parser.add_argument("--output", type=Path, help="a JSON file, written after each row")
    parser.add_argument("--commit", default=commit(), help="what the result says it measured")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {
        "commit": asked.commit, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__, "tokens": asked.tokens, "slots": asked.slots, "fp8": asked.fp8, "shapes": {},
    }
    failed = False
    for shape in asked.shape.split(","):
        rows = results["shapes"][shape] = {}
        for name, row in measure(shape, device, asked):
            rows[name] = row
            failed = failed or "failed" in row
            print(f"{shape:5} {name:28}", shown(row), flush=True)
            if asked.output:
                store(results, asked.output)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
