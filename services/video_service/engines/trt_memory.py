"""How much of an engine's weights stays on the GPU when not all of them fit."""

from collections.abc import Mapping
from dataclasses import dataclass

from video_service.engine_store.manifest import EngineRefused
from video_service.engines.gpu import Gpu
from video_service.engines.trt_protocol import Engine

HEADROOM_BYTES = 2**30
"""Left free beside the engines: the tensors that go in and out, torch's own, and what the driver takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an engine takes on the GPU, in bytes."""

    weights: int
    """Those that can be streamed; others are there already."""
    working: int
    """For activations."""
    scratch: int
    """For streaming itself, when any weights are streamed."""


def share_memory(engines: Mapping[str, Engine], gpu: Gpu) -> dict[str, bool]:
    """Set each engine's weight budget by the memory that is free now; true beside those that will stream weights.

    Must come before the engines' first contexts. An engine that was built without weight streaming holds all of its
    weights already.

    Args:
        engines: by graph, those that run most often first.
    """
    needs = {
        name: Needs(
            weights=engine.streamable_weights_size, working=engine.device_memory_size_v2,
            scratch=engine.weight_streaming_scratch_memory_size,
        )
        for name, engine in engines.items()
    }
    budgets = weight_budgets(needs, gpu.free_bytes())
    for name, engine in engines.items():
        if not needs[name].weights:
            continue
        engine.weight_streaming_budget_v2 = budgets[name]
        if engine.weight_streaming_budget_v2 != budgets[name]:
            raise EngineRefused(
                f"TensorRT does not take {budgets[name]} bytes as {name}'s budget for {needs[name].weights} of weights"
            )
    return {name: budgets[name] < needs[name].weights for name in engines}


def weight_budgets(needs: Mapping[str, Needs], free: int) -> dict[str, int]:
    """Bytes of weights to hold on the GPU, by engine: all of them while they fit, then what is left, then none.

    Args:
        needs: by engine; the first is served first.
        free: bytes free on the GPU.
    """
    room = free - HEADROOM_BYTES - sum(need.working for need in needs.values())
    budgets: dict[str, int] = {}
    for name, need in needs.items():
        if room >= need.weights:
            budgets[name] = need.weights
        else:
            room -= need.scratch
            budgets[name] = max(0, min(need.weights, room))
        room -= budgets[name]
    return budgets
