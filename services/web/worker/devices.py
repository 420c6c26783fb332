"""The GPUs that the worker's process computes on, by torch, as far as it is there: nothing here imports it or begins
with CUDA."""

import sys
from collections.abc import Sequence
from typing import Any

from contracts.models import DeviceInfo

CPU = DeviceInfo(name="cpu")


def devices_of(engine: str, gpus: Sequence[DeviceInfo]) -> list[DeviceInfo]:
    """What a model of this engine is computed on by a worker that uses these GPUs; empty where that is not known, as of
    a model that another server runs."""
    return [CPU] if engine.endswith("-cpu") else list(gpus)


def used_gpus() -> list[DeviceInfo]:
    """With their memory as it is now."""
    torch = _torch_on_cuda()
    return [] if torch is None else [_gpu(torch, index) for index in _used(torch)]


def cuda_memory() -> dict[str, dict[str, int]]:
    """Bytes by kind, by device, as torch counts them; empty where this process uses no CUDA (yet)."""
    torch = _torch_on_cuda()
    if torch is None:
        return {}
    return {
        f"cuda:{index}": {
            "allocated": torch.cuda.memory_allocated(index), "peak": torch.cuda.max_memory_allocated(index),
            "reserved": torch.cuda.memory_reserved(index),
            "total": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in range(torch.cuda.device_count())
    }


def _torch_on_cuda() -> Any:
    torch: Any = sys.modules.get("torch")
    return torch if hasattr(torch, "cuda") and torch.cuda.is_initialized() else None


def _used(torch: Any) -> list[int]:
    """Those with memory of this process: to ask another for its own would begin with it, which takes hundreds of MB."""
    held = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
    return held or [torch.cuda.current_device()]


def _gpu(torch: Any, index: int) -> DeviceInfo:
    free, total = torch.cuda.mem_get_info(index)
    return DeviceInfo(name=torch.cuda.get_device_name(index), memory_bytes=total, free_bytes=free)
