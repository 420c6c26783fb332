"""Measuring a stage on a device: seconds, peak memory, launches, and which kernels take the time."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

REPEATS = 3


def measure(run: Callable[[], Any], *, warm: int = 1, kernels: int = 0, count: bool = True) -> dict[str, Any]:
    """Median seconds of three runs after `warm` others; on CUDA peak GiB, launches and the slowest kernels too.

    Without `count` no launches: to trace some 200,000 takes minutes.
    """
    start = time.perf_counter()
    for _ in range(warm):
        run()
    _wait()
    found: dict[str, Any] = {"warm_up_s": round(time.perf_counter() - start, 2)}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        _wait()
        seconds.append(time.perf_counter() - start)
    found["seconds"] = round(statistics.median(seconds), 4)
    if torch.cuda.is_available():
        found["peak_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        found |= _kernels(run, kernels) if count else {}
    return found


def _kernels(run: Callable[[], Any], shown: int) -> dict[str, Any]:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run()
        _wait()
    events = [event for event in profiled.key_averages() if str(event.device_type).endswith("CUDA")]
    events.sort(key=lambda event: -event.self_device_time_total)
    table = [
        {"ms": round(event.self_device_time_total / 1e3, 2), "calls": event.count, "kernel": event.key[:90]}
        for event in events[:shown]
    ]
    total = sum(event.self_device_time_total for event in events)
    # A graph's replay is one launch, however many kernels it holds.
    launches = sum(
        event.count for event in profiled.key_averages() if "Launch" in event.key and event.key.startswith("cu"))
    return {"kernel_ms": round(total / 1e3, 1), "kernels": sum(event.count for event in events),
            "launches": launches} | ({"slowest": table} if shown else {})


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative L2 distance."""
    return float(f"{((found.float() - reference.float()).norm() / reference.float().norm()).item():.2e}")


def psnr(found: torch.Tensor, reference: torch.Tensor, span: float) -> float:
    """In dB, of numbers that span `span`."""
    error = (found.float() - reference.float()).square().mean().clamp_min(1e-20)
    return round(float(10 * torch.log10(span**2 / error)), 1)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
