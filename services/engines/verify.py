"""Does an engine compute what torch computes? Figures against bars, and how long either takes."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import torch

from engines.export.graph import Graph, run_in_torch
from engines.run.session import Session
from engines.store.manifest import Check, EngineRefused

BARS: Mapping[str, tuple[float, float]] = {
    "fp32": (1e-4, 1e-3), "fp16": (5e-3, 5e-2), "bf16": (4e-2, 4e-1), "fp8": (8e-2, 8e-1), "int8": (8e-2, 8e-1),
}
"""Relative L2 and relative largest error that an engine of each precision must stay under, against torch in float32."""


def compare(
    graph: Graph, reference: Graph, served: Graph, open_session: Callable[[], Session], *, precision: str,
    device: torch.device, gpu: str | None = None,
) -> Check:
    """Run torch, then the engine, on the seeded input of `graph`; only one of them is on the device at a time.

    Args:
        graph: in the engine's precision, whose inputs are used.
        reference: the same graph of float32 weights.
        served: the same graph in the number format that the service would use, for its time only.
        gpu: name of the device.

    Raises:
        EngineRefused: the engine does not open or run; caused by a `MemoryError` where memory is short.
    """
    inputs = {name: x.to(device) for name, x in graph.inputs.items()}
    try:
        with _on(reference, device):
            expected = _run(reference, inputs)
        with _on(served, device):
            served_inputs = {name: x.to(device, served.inputs[name].dtype) for name, x in inputs.items()}
            run_in_torch(served, served_inputs)
            _, torch_s = _timed(lambda: run_in_torch(served, served_inputs), device)
    except torch.OutOfMemoryError as error:
        raise EngineRefused(f"torch, with which it is compared, has too little memory: {error}") from MemoryError()
    session = open_session()
    session.run(inputs)  # the first run pays for memory and lazy set-up
    found, engine_s = _timed(lambda: session.run(inputs), device)
    l2, largest = _errors(expected, found)
    bar_l2, bar_max = BARS[precision]
    return Check(
        relative_l2=l2, max_error=largest, bar_l2=bar_l2, bar_max=bar_max, engine_s=engine_s, torch_s=torch_s,
        device=str(device), gpu=gpu,
    )


@contextlib.contextmanager
def _on(graph: Graph, device: torch.device) -> Iterator[None]:
    """The module's weights are on the device, and afterwards no longer."""
    graph.module.to(device)
    try:
        yield
    finally:
        graph.module.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _run(reference: Graph, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return run_in_torch(reference, {name: x.to(reference.inputs[name].dtype) for name, x in inputs.items()})


def _errors(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """The worst output's relative L2 and relative largest error; infinite where a number is not finite."""
    worst = [0.0, 0.0]
    for name, true in expected.items():
        true, seen = true.double(), found[name].double()
        if not bool(torch.isfinite(seen).all()):
            return float("inf"), float("inf")
        # Of an output that is all zero, the errors are absolute.
        norm, peak = float(true.norm()) or 1.0, float(true.abs().max()) or 1.0
        worst[0] = max(worst[0], float((seen - true).norm()) / norm)
        worst[1] = max(worst[1], float((seen - true).abs().max()) / peak)
    return worst[0], worst[1]


def _timed(
    run: Callable[[], dict[str, torch.Tensor]], device: torch.device
) -> tuple[dict[str, torch.Tensor], float]:
    _wait(device)
    start = time.perf_counter()
    result = run()
    _wait(device)
    return result, time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
