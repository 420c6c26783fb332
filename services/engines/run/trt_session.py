"""An engine on a GPU, through TensorRT or TensorRT-RTX alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engines.run.gpu import Gpu
from engines.run.trt_api import TensorRT
from engines.run.trt_log import Log
from engines.run.trt_protocol import Bytes, Context, Engine, RtxRuntimeConfig, RuntimeCache, view
from engines.store.manifest import EngineRefused


class KeptKernels(Protocol):
    """Kernels that TensorRT-RTX compiled for this engine on this GPU, kept from start to start."""

    def read(self) -> bytes:
        """Empty where nothing is kept."""
        ...

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replace what is kept by `change` of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run."""

    cuda_graph: bool = False
    """Queue the whole engine at once instead of kernel by kernel."""
    streams_weights: bool = False
    """Not all weights are on the GPU."""
    kernels: KeptKernels | None = None


def open_engine(api: TensorRT, data: Bytes) -> tuple[Engine, Log]:
    """Load a built engine. Raises `EngineRefused` with TensorRT's words: another GPU, another version, damage."""
    said = Log(api)
    runtime = api.Runtime(said.logger)
    if runtime is None:
        raise EngineRefused(said.reason("TensorRT has no runtime on this machine: there is no usable GPU"))
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        cause = MemoryError() if said.ran_out_of_memory else None
        raise EngineRefused(_why_invalid(api, runtime, data) + said.reason("TensorRT gives no cause")) from cause
    return engine, said


def _why_invalid(api: TensorRT, runtime: Any, data: Bytes) -> str:
    """TensorRT-RTX's own diagnosis of the bytes, where it has one."""
    kinds = getattr(getattr(api, "EngineInvalidityDiagnostics", None), "__members__", {})
    if not kinds:
        return "the engine does not load: "
    _, found = runtime.get_engine_validity(data)
    names = [name.lower().replace("_", " ") for name, bit in kinds.items() if int(bit) & found]
    return f"the engine does not load ({', '.join(names)}): " if names else "the engine does not load: "


class TrtSession:
    """One engine on one CUDA device and torch's current stream; fixed shapes. Not safe to share between threads."""

    def __init__(self, api: TensorRT, engine: Engine, said: Log, gpu: Gpu, options: RunOptions) -> None:
        """Raises `EngineRefused`: there is no memory for it. `engine` and `said` are from `open_engine`."""
        self._gpu, self._engine, self._said = gpu, engine, said
        config, self._kernels = _rtx_config(api, self._engine, options)
        self._context = self._make_context(config)
        self._save_kernels = options.kernels
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        kinds = {
            name: (tuple(self._engine.get_tensor_shape(name)), torch_dtype(api, self._engine.get_tensor_dtype(name)))
            for name in names
        }
        output = api.TensorIOMode.OUTPUT
        self._outputs = {name: kinds[name] for name in names if self._engine.get_tensor_mode(name) == output}
        self._inputs = {name: kinds[name] for name in names if name not in self._outputs}
        self.input_names, self.output_names = tuple(self._inputs), tuple(self._outputs)
        # TensorRT-RTX captures by itself; while weights are streamed there is nothing fixed to capture.
        capture = options.cuda_graph and config is None and not options.streams_weights
        self._captured = _CapturedRun(self, gpu) if capture else None

    @property
    def engine(self) -> Engine:
        return self._engine

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input or output `name`."""
        shape, dtype = self._inputs.get(name) or self._outputs[name]
        return torch.zeros(shape, dtype=dtype, device=self._gpu.device)

    def run(
        self, inputs: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """All outputs by name. Each is written to its tensor of `into`, or else to fresh memory of its own, so that no
        step overwrites what another still reads. Raises `EngineRefused`."""
        inputs = {name: self._fitting(name, x) for name, x in inputs.items()}
        if missing := self._inputs.keys() - inputs.keys():
            raise EngineRefused(f"the engine lacks its input {', '.join(sorted(missing))}")
        if self._captured is not None and into is None:
            return self._captured(inputs)
        results = self.fresh_outputs() | dict(into or {})
        self.queue(inputs | results)
        return results

    def fresh_outputs(self) -> dict[str, torch.Tensor]:
        """Memory for every output, nothing in it."""
        return {
            name: torch.empty(shape, dtype=dtype, device=self._gpu.device)
            for name, (shape, dtype) in self._outputs.items()
        }

    def queue(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Bind every tensor and queue the engine on the current stream. Raises `EngineRefused`."""
        for name, x in tensors.items():
            if not self._context.set_tensor_address(name, x.data_ptr()):
                raise EngineRefused(self._said.reason(f"the engine has no tensor {name}"))
        # torch's allocator hands memory out in stream order, so the inputs may go before the kernels have run.
        if not self._context.execute_async_v3(self._gpu.stream()):
            cause = MemoryError() if self._said.ran_out_of_memory else None
            raise EngineRefused(self._said.reason("the engine did not run")) from cause
        self._keep_kernels()

    def _fitting(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """On the device and contiguous. A shape or number format that the engine has not would be read as garbage."""
        kind = self._inputs.get(name)
        if kind != (tuple(x.shape), x.dtype):
            raise EngineRefused(f"the engine takes {name} as {kind}, not {tuple(x.shape)} {x.dtype}")
        return x.to(self._gpu.device).contiguous()

    def _make_context(self, config: Any) -> Context:
        engine = self._engine
        context = engine.create_execution_context() if config is None else engine.create_execution_context(config)
        if context is None:
            needed, free = engine.device_memory_size_v2 / 2**20, self._gpu.free_bytes() / 2**20
            raise EngineRefused(
                f"there is no memory for this engine: beside its weights it takes {needed:.0f} MiB, and {free:.0f} MiB "
                f"of the GPU are free. {self._said.reason('TensorRT gives no cause')}"
            ) from MemoryError()
        return context

    def _keep_kernels(self) -> None:
        kernels, keep = self._kernels, self._save_kernels
        if kernels is not None and keep is not None:
            self._save_kernels = None  # all of them are compiled once it has run
            keep.update(lambda _: bytes(view(kernels.serialize())))


class _CapturedRun:
    """The engine as one CUDA graph over memory of its own: inputs are copied in, and outputs out."""

    def __init__(self, session: TrtSession, gpu: Gpu) -> None:
        self._session, self._gpu = session, gpu
        self._inputs = {name: session.zeros(name) for name in session.input_names}
        self._outputs = session.fresh_outputs()
        self._replay: Callable[[], None] | None = None

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, x in inputs.items():
            self._inputs[name].copy_(x)
        if self._replay is None:
            # The first run allocates and sets up, which cannot be captured.
            self._queue()
            self._gpu.wait()
            self._replay = self._gpu.capture(self._queue)
        else:
            self._replay()
        return {name: x.clone() for name, x in self._outputs.items()}

    def _queue(self) -> None:
        self._session.queue(self._inputs | self._outputs)


def _rtx_config(
    api: TensorRT, engine: Engine, options: RunOptions
) -> tuple[RtxRuntimeConfig | None, RuntimeCache | None]:
    """TensorRT-RTX compiles kernels when an engine first runs: they are kept, and graphs are its own business."""
    strategies = getattr(api, "CudaGraphStrategy", None)
    if strategies is None:
        return None, None
    config: RtxRuntimeConfig = engine.create_runtime_config()
    if options.cuda_graph:
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
    if options.kernels is None:
        return config, None
    cache = config.create_runtime_cache()
    kept = options.kernels.read()
    if kept:
        cache.deserialize(kept)  # false where another GPU or version made them: they are compiled again
    return (config, cache) if config.set_runtime_cache(cache) else (config, None)


def torch_dtype(api: TensorRT, kind: Any) -> torch.dtype:
    """Of a tensor that goes in or out. Raises `EngineRefused` for a number format that torch has not."""
    kinds = api.DataType
    table = {
        kinds.FLOAT: torch.float32, kinds.HALF: torch.float16, kinds.BF16: torch.bfloat16, kinds.INT64: torch.int64,
        kinds.INT32: torch.int32, kinds.BOOL: torch.bool, kinds.INT8: torch.int8, kinds.UINT8: torch.uint8,
        kinds.FP8: torch.float8_e4m3fn,
    }
    if kind not in table:
        raise EngineRefused(f"the engine has a tensor of {kind}")
    return table[kind]
