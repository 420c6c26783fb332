"""What an engine asks of the GPU, beside its own library: a stream, how much memory is free, and graph capture."""

from collections.abc import Callable
from typing import Protocol

import torch


class Gpu(Protocol):
    """One device."""

    device: torch.device

    def stream(self) -> int:
        """Handle of the stream that torch works on now."""
        ...

    def free_bytes(self) -> int:
        """Memory that nothing holds, torch's idle reserve included."""
        ...

    def wait(self) -> None:
        """Until everything queued on that stream has run."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues, without running it; the result queues all of it at once, on the same memory."""
        ...


class CudaGpu:
    """The GPU that torch computes on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream

    def free_bytes(self) -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def wait(self) -> None:
        torch.cuda.current_stream(self.device).synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # on a stream of its own, which becomes the current one
            work()
        return graph.replay
