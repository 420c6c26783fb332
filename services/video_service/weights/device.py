"""Which device and number format a render uses, decided without importing torch."""

import functools
import importlib.util
import re
from pathlib import Path
from typing import Literal

from engines.store.cuda import cuda_version
from video_service.settings import DeviceChoice, DtypeChoice

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]

_NATIVE_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # x86, x86, arm64
_AMPERE = 8  # the first generation with bf16 matrix units


class DeviceUnavailable(Exception):
    """The configured device is not on this machine."""


def pick_device(choice: DeviceChoice) -> Device:
    """The device to compute on; raises `DeviceUnavailable` where `cuda` is asked for and absent."""
    if choice == "cpu":
        return "cpu"
    if _torch_has_cuda() and _cuda_generation() is not None:
        return "cuda"
    if choice == "cuda":
        raise DeviceUnavailable(
            "VIDEO_DEVICE=cuda, but there is no CUDA device here or torch is a CPU build; set VIDEO_DEVICE=auto or cpu."
        )
    return "cpu"


def pick_dtype(choice: DtypeChoice, device: Device) -> Dtype:
    """The number format of the big matrices: bfloat16 only where it is native, for elsewhere it is emulated."""
    if choice != "auto":
        return choice
    if device == "cuda":
        return "bfloat16" if (_cuda_generation() or 0) >= _AMPERE else "float32"
    return "bfloat16" if _cpu_flags() & _NATIVE_BF16_FLAGS else "float32"


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


@functools.cache
def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b.*=\s*['\"]", version, re.MULTILINE) is not None


def _cuda_generation() -> int | None:
    found = cuda_version()
    return None if found is None else found[0]
