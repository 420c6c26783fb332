"""A real worker process that does as the words say; it needs no model library.

To load: `ready`, `gpu` (the same, with a torch that computes on the second of two GPUs), `refuse`, `later`, `die`,
`sleep`, or a path: there is a life less in that file with every start, and while lives are left the worker dies in it.
To work: `echo`, `count` (reports 1..5), `die`, `poison` (a fatal device error), `break`, `slow` (1000 steps of 20 ms),
`hang`, `garbage` (objects a collection visits), a path (see `tidy_up`), or bytes, whose length is the answer.
"""

import gc
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contracts.errors import Problem
from web.worker.child import Handler, Report, WorkerProgram, run
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable
from web.worker.imports import lasting_imports


def open_model(settings: str) -> tuple[dict[str, str], Handler]:
    if settings == "refuse":
        raise ModelUnavailable("The weights are damaged.")
    if settings == "later":
        raise ModelNotYetAvailable("There is no network.")
    if settings == "sleep":
        time.sleep(600)
    if settings == "die" or (settings.startswith("/") and take_a_life(Path(settings))):
        os.kill(os.getpid(), signal.SIGKILL)
    if settings == "gpu":
        sys.modules["torch"] = SimpleNamespace(cuda=TwoGpus())  # type: ignore[assignment]
    with lasting_imports():
        sys.modules["a library"] = [[number] for number in range(50_000)]  # type: ignore[assignment]
    return {"id": "scripted"}, work


class TwoGpus:
    """Of torch.cuda what is asked; each look finds a byte less."""

    free = 100

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def memory_reserved(self, index: int) -> int:
        return index

    memory_allocated = max_memory_allocated = memory_reserved

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=1000)

    def get_device_name(self, index: int) -> str:
        return f"GPU {index}"

    def mem_get_info(self, index: int) -> tuple[int, int]:
        assert index == 1, "the other GPU would be begun with"
        self.free -= 1
        return self.free, 1000


def take_a_life(path: Path) -> bool:
    lives = int(path.read_text())
    path.write_text(str(max(0, lives - 1)))
    return lives > 0


def work(payload: Any, report: Report) -> Any:
    if isinstance(payload, bytes):
        return len(payload)
    if payload == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if payload == "poison":
        raise ValueError("the step failed") from RuntimeError("CUDA error: an illegal memory access was encountered")
    if payload == "break":
        raise KeyError("no such thing")
    if payload.startswith("/"):
        TIDY.append(Path(payload))
    if payload == "garbage":
        return len(gc.get_objects())
    if payload == "hang":
        time.sleep(600)
    for step in range({"count": 5, "slow": 1000}.get(payload, 0)):
        time.sleep(0.02 if payload == "slow" else 0)
        report(step + 1)
    return payload


TIDY: list[Path] = []


def tidy_up() -> None:
    """Where there was a path to work on: wait for its file, and say so in it."""
    for path in TIDY:
        until = time.monotonic() + 20
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        path.write_text("tidied up")
    TIDY.clear()


def explain(error: Exception) -> Problem:
    return Problem(status=500, code="broken", title="Broken", detail=repr(error))


if __name__ == "__main__":
    sys.exit(run(WorkerProgram(open_model=open_model, explain=explain, tidy_up=tidy_up)))
