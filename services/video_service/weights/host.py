"""Parts of models as they were read, kept on the host: a model that left the device comes back without its files."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from video_service.weights.residency import Key, Residency

Part = TypeVar("Part", bound=nn.Module)


class HostCopies:
    """The parts that were read last, within a budget of the host's memory; in pinned memory where there is CUDA, from
    which they reach the device at the full speed of its bus."""

    def __init__(self, budget: int) -> None:
        self._kept: Residency[nn.Module] = Residency(budget)

    def part(self, key: Key, read: Callable[[], Any]) -> Any:
        """The part, read where it is not kept: a module of its own over the kept memory, which no one may write to."""
        try:
            with self._kept.using(key, 0, lambda: _pinned(read())) as part:
                return sharing_copy(part)
        finally:
            self._kept.trim()


def sharing_copy(module: Part) -> Part:
    """A module of its own parameters over the same memory: those that are given other `data` leave the first alone."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    memo |= {id(weight): nn.Parameter(weight.data, requires_grad=False) for weight in module.parameters()}
    return copy.deepcopy(module, memo)


def _pinned(part: nn.Module) -> tuple[nn.Module, int]:
    """The part with its parameters in pinned memory, and the bytes that they take there."""
    weights = list(part.parameters())
    if not torch.cuda.is_available():
        return part, sum(weight.nbytes for weight in weights)
    for weight in weights:
        weight.data = weight.data.pin_memory()
    return part, sum(1 << (weight.nbytes - 1).bit_length() for weight in weights if weight.nbytes)  # as torch rounds up
