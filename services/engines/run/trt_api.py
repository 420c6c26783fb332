"""TensorRT and TensorRT-RTX as modules that fit `trt_protocol.TensorRT`, or why there is none."""

import ctypes
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import cast

from engines.run.trt_protocol import TensorRT

_RTX_LIBRARIES = ("libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*")


class TensorRTUnavailable(Exception):
    """The library is not installed or cannot be loaded; the message says what to install."""


def load_tensorrt() -> TensorRT:
    """TensorRT for data-centre GPUs. Raises `TensorRTUnavailable`."""
    try:
        return as_api(importlib.import_module("tensorrt"))
    except (ImportError, OSError) as error:
        raise TensorRTUnavailable(
            f"TensorRT cannot be loaded ({error}). Install the `tensorrt` extra, which downloads from NVIDIA: "
            "pip install 'stillmotion[tensorrt]'."
        ) from error


def load_tensorrt_rtx() -> TensorRT:
    """TensorRT-RTX, whose builder needs no GPU. Raises `TensorRTUnavailable`."""
    try:
        if importlib.util.find_spec("tensorrt_rtx") is not None:
            return as_api(importlib.import_module("tensorrt_rtx"))
        _preload_rtx()
        return as_api(importlib.import_module("tensorrt_rtx_bindings"))
    except (ImportError, OSError) as error:
        raise TensorRTUnavailable(
            f"TensorRT-RTX cannot be loaded ({error}). Install the `rtx` extra: pip install 'stillmotion[rtx]'."
        ) from error


def as_api(module: ModuleType) -> TensorRT:
    """The module as the part that is used; raises `ImportError` naming what it lacks."""
    wanted = (*TensorRT.__annotations__, "Builder", "OnnxParser", "Runtime", "Refitter")
    if missing := [name for name in wanted if not hasattr(module, name)]:
        raise ImportError(f"{module.__name__} lacks {', '.join(missing)}")
    return cast(TensorRT, module)


def _preload_rtx() -> None:
    """Load the libraries that ONNX Runtime's execution provider carries: the bindings then find them by their names."""
    spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if spec is None or spec.origin is None:
        raise ImportError("no libtensorrt_rtx here")
    folder = Path(spec.origin).parent
    for pattern in _RTX_LIBRARIES:
        found = sorted(folder.glob(pattern))
        if not found:
            raise ImportError(f"{folder.name} holds no {pattern}")
        ctypes.CDLL(str(found[-1]), mode=ctypes.RTLD_GLOBAL)
