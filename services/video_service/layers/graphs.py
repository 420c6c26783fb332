"""A function of tensors as one CUDA graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

WARM_UP_RUNS = 2


class Graphed:
    """Runs `function` once to capture it; then each call copies its arguments in and launches the graph.

    What it returns is the graph's own memory, written again by the next call. Arguments keep their shapes and types.
    Anything else that the function reads is read where it lies, so it must stay there.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[torch.Tensor], pool: Any = None) -> None:
        """With the `pool` of another, both use one memory: what that one returned must have been used up."""
        self._inputs = [x.clone() for x in arguments]
        # Off the main stream, as capture asks; libraries make their workspaces and kernels are compiled here.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Threads that watch exchanges between GPUs ask for events meanwhile, which is none of this one's capture.
        with torch.no_grad(), torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    @property
    def pool(self) -> Any:
        return self._graph.pool()

    def __call__(self, *arguments: torch.Tensor) -> Any:
        for kept, given in zip(self._inputs, arguments, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output
