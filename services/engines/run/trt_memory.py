"""How much of an engine's weights stays on the GPU when not all of them fit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from engines.run.gpu import Gpu
from engines.run.trt_protocol import Engine
from engines.store.manifest import EngineRefused

HEADROOM_BYTES = 2**30
"""Left free beside the engines: the tensors that go in and out, torch's own, and what the driver takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an engine takes on the GPU, in bytes."""

    weights: int
    """Those that can be streamed; others are there already."""
    working: int
    """For activations, and for streaming where weights are streamed."""


def share_memory(engines: Mapping[str, Engine], streamable: Collection[str], gpu: Gpu) -> dict[str, bool]:
    """Set weight budgets by the memory that is free now; by engine, true beside those that will stream weights.

    Must come before the engines' first contexts.

    Args:
        engines: by graph, those that run most often first.
        streamable: those that were built for weight streaming. The others hold all of their weights already, and
            TensorRT reports an error when they are asked.
    """
    needs: dict[str, Needs] = {}
    for name, engine in engines.items():
        weights = 0
        if name in streamable:
            weights = engine.streamable_weights_size
            # The working memory grows with what is streamed: this is the most of it.
            engine.weight_streaming_budget_v2 = 0
        needs[name] = Needs(weights=weights, working=engine.device_memory_size_v2)
    budgets = weight_budgets(needs, gpu.free_bytes())
    for name in streamable:
        engines[name].weight_streaming_budget_v2 = budgets[name]
        if engines[name].weight_streaming_budget_v2 != budgets[name]:
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
        budgets[name] = max(0, min(need.weights, room))
        room -= budgets[name]
    return budgets
