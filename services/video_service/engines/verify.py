"""Does an engine compute what torch computes? Figures against bars, and how long either takes."""

import time
from collections.abc import Callable, Mapping

import torch

from graphs.graph import Graph, run_in_torch
from video_service.engine_store.manifest import Check
from video_service.engines.sessions import Session

BARS: Mapping[str, tuple[float, float]] = {"fp32": (1e-4, 1e-3), "fp16": (5e-3, 5e-2), "bf16": (4e-2, 4e-1)}
"""Relative L2 and relative largest error that an engine of each precision must stay under, against torch in float32."""


def compare(
    graph: Graph, reference: Graph, served: Graph, session: Session, *, precision: str, device: torch.device
) -> Check:
    """Run the engine and torch on the seeded input of `graph`.

    Args:
        graph: in the engine's precision, whose inputs are used.
        reference: the same graph of float32 weights.
        served: the same graph in the number format that the service would use, for its time only.
    """
    inputs = {name: x.to(device) for name, x in graph.inputs.items()}
    expected = _run(reference, inputs)
    session.run(inputs)  # the first run pays for memory and lazy set-up
    found, engine_s = _timed(lambda: session.run(inputs), device)
    served_inputs = {name: x.to(device, served.inputs[name].dtype) for name, x in inputs.items()}
    run_in_torch(served, served_inputs)
    _, torch_s = _timed(lambda: run_in_torch(served, served_inputs), device)
    l2, largest = _errors(expected, found)
    bar_l2, bar_max = BARS[precision]
    return Check(
        relative_l2=l2, max_error=largest, bar_l2=bar_l2, bar_max=bar_max, engine_s=engine_s, torch_s=torch_s,
        device=str(device),
    )


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
