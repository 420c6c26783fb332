"""How many bytes of memory there are where models are held, how many one holds, and giving them back."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from video_service.weights.memory import machine_bytes

_OWN = "video_service"  # whose objects are looked into


def device_bytes() -> int:
    """Of the GPU where CUDA is in use, else of the machine."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_initialized() else machine_bytes()


def give_back() -> None:
    """Let go of what no model holds any more."""
    gc.collect()  # a captured graph's closure makes a cycle
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def held_bytes(model: Any, beside: Any = None) -> int:
    """Of the tensors that the model reaches, each piece of memory once, but for those that `beside` holds as well.

    What lies on no device (meta) counts for nothing, and what waits on the host for its turn on a GPU neither; a CUDA
    graph's own memory is not seen.
    """
    others = _pieces(beside)
    return sum(num_bytes for piece, num_bytes in _pieces(model).items() if piece not in others)


def _pieces(value: Any) -> dict[int, int]:
    tensors = [tensor for tensor in _tensors(value, set()) if not tensor.is_meta]
    if any(tensor.is_cuda for tensor in tensors):
        tensors = [tensor for tensor in tensors if tensor.is_cuda]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def _tensors(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
        yield from value.buffers()
        if type(value).__module__.startswith(_OWN):
            yield from _tensors(vars(value), seen)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part, seen)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in value:
            yield from _tensors(part, seen)
    elif type(value).__module__.startswith(_OWN):
        for part in [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else vars(
            value).values():
            yield from _tensors(part, seen)
