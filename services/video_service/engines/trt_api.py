"""The part of `tensorrt` (10.12 and 11) and `tensorrt_rtx` that is used here: the two agree on it.

Types only. `load_tensorrt` and `load_tensorrt_rtx` return a module that fits, or say why there is none.
"""

import ctypes
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

_RTX_LIBRARIES = ("libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*")


class ParserError(Protocol):
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Network(Protocol):
    num_layers: int


class Parser(Protocol):
    num_errors: int

    def parse_from_file(self, path: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class BuilderConfig(Protocol):
    num_compute_capabilities: int
    """TensorRT-RTX only."""

    def set_compute_capability(self, capability: Any, index: int) -> bool: ...


class Builder(Protocol):
    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> memoryview | None: ...


class Context(Protocol):
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class Engine(Protocol):
    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def create_execution_context(self) -> Context | None: ...


class Runtime(Protocol):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None: ...


class TensorRT(Protocol):
    """The module."""

    __version__: str
    ILogger: Any
    NetworkDefinitionCreationFlag: Any
    TensorIOMode: Any
    DataType: Any

    def Builder(self, logger: Any) -> Builder: ...
    def OnnxParser(self, network: Network, logger: Any) -> Parser: ...
    def Runtime(self, logger: Any) -> Runtime: ...


class TensorRTUnavailable(Exception):
    """The library is not installed or cannot be loaded; the message says what to install."""


def load_tensorrt() -> TensorRT:
    """TensorRT for data-centre GPUs. Raises `TensorRTUnavailable`."""
    try:
        return as_api(importlib.import_module("tensorrt"))
    except ImportError as error:
        raise TensorRTUnavailable(
            f"TensorRT cannot be loaded ({error}). Install tensorrt-cu13, which downloads from NVIDIA."
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
    """The module as the part above; raises `ImportError` naming what it lacks."""
    wanted = (*TensorRT.__annotations__, "Builder", "OnnxParser", "Runtime")
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
