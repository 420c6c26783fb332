"""CUDA memory as torch counts it in this process, without importing torch."""

import sys


def cuda_memory() -> dict[str, dict[str, int]]:
    """Bytes by kind, by device; empty where this process uses no CUDA (yet)."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return {}
    return {
        f"cuda:{index}": {
            "allocated": torch.cuda.memory_allocated(index), "peak": torch.cuda.max_memory_allocated(index),
            "reserved": torch.cuda.memory_reserved(index),
            "total": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in range(torch.cuda.device_count())
    }
