"""The part of `tensorrt` (10.12 and 11) and `tensorrt_rtx` that is used here, as types.

The three agree on every name that is not marked otherwise; the tests hold this page against their recorded surfaces.
Parameters have the libraries' own names. A class here stands for the library's class of that name, or the one that its
docstring names in backquotes.
"""

import mmap
from collections.abc import Sequence
from typing import Any, Protocol

Bytes = bytes | memoryview | mmap.mmap


class ParserError(Protocol):
    """`ParserError`."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Network(Protocol):
    """`INetworkDefinition`."""

    num_layers: int


class Parser(Protocol):
    """`OnnxParser`."""

    num_errors: int

    def parse_from_file(self, model: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class HostMemory(Protocol):
    """`IHostMemory`, a buffer."""

    nbytes: int


def view(memory: HostMemory) -> memoryview:
    """Its bytes, not copied."""
    buffer: Any = memory
    return memoryview(buffer)


class TimingCache(Protocol):
    """`ITimingCache`."""

    def combine(self, input_cache: "TimingCache", ignore_mismatch: bool) -> bool: ...
    def serialize(self) -> HostMemory: ...


class BuilderConfig(Protocol):
    """`IBuilderConfig`."""

    progress_monitor: Any

    def set_flag(self, flag: Any) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> TimingCache | None: ...


class RtxBuilderConfig(BuilderConfig, Protocol):
    """`IBuilderConfig` of TensorRT-RTX only."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool: ...


class Builder(Protocol):
    """`Builder`."""

    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> HostMemory | None: ...


class Context(Protocol):
    """`IExecutionContext`."""

    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class RuntimeCache(Protocol):
    """`IRuntimeCache` of TensorRT-RTX only: the kernels that it compiled for this GPU."""

    def deserialize(self, blob: bytes) -> bool: ...
    def serialize(self) -> HostMemory: ...


class RtxRuntimeConfig(Protocol):
    """`IRuntimeConfig` of TensorRT-RTX only."""

    cuda_graph_strategy: Any

    def create_runtime_cache(self) -> RuntimeCache: ...
    def set_runtime_cache(self, cache: RuntimeCache) -> bool: ...


class Engine(Protocol):
    """`ICudaEngine`."""

    num_io_tensors: int
    refittable: bool
    device_memory_size_v2: int
    """Of one context; changes with the weight budget."""
    streamable_weights_size: int
    """This and the next: only of an engine that was built for weight streaming."""
    weight_streaming_budget_v2: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def create_runtime_config(self) -> Any: ...
    def create_execution_context(self, runtime_config: Any = None) -> Context | None: ...
    def serialize(self) -> HostMemory | None: ...


class Runtime(Protocol):
    """`Runtime`."""

    def deserialize_cuda_engine(self, serialized_engine: Bytes) -> Engine | None: ...


class RtxRuntime(Runtime, Protocol):
    """`Runtime` of TensorRT-RTX only."""

    def get_engine_validity(self, buffer: Bytes) -> tuple[Any, int]: ...


class Refitter(Protocol):
    """`Refitter`."""

    def get_all_weights(self) -> list[str]: ...
    def get_weights_prototype(self, weights_name: str) -> Any: ...
    def set_named_weights(self, name: str, weights: Any) -> bool: ...
    def get_missing_weights(self) -> list[str]: ...
    def refit_cuda_engine(self) -> bool: ...


class TensorRT(Protocol):
    """The module."""

    __version__: str
    ILogger: Any
    IProgressMonitor: Any
    NetworkDefinitionCreationFlag: Any
    BuilderFlag: Any
    TensorIOMode: Any
    DataType: Any
    Weights: Any

    def Builder(self, logger: Any) -> Builder: ...
    def OnnxParser(self, network: Network, logger: Any) -> Parser: ...
    def Runtime(self, logger: Any) -> Runtime: ...
    def Refitter(self, engine: Engine, logger: Any) -> Refitter: ...
