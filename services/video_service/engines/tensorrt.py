"""ONNX to an engine, and an engine on a GPU, through TensorRT or TensorRT-RTX alike."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from video_service.engine_store.manifest import EngineRefused
from video_service.engines.trt_api import Builder, BuilderConfig, Engine, Network, ParserError, TensorRT

log = logging.getLogger(__name__)

RTX_CAPABILITIES = ("SM86", "SM89", "SM120")


class EngineBuildFailed(Exception):
    """TensorRT refused the graph; the message is TensorRT's own."""


class Log:
    """What TensorRT said, kept, since it returns nothing but None when it fails."""

    def __init__(self, api: TensorRT) -> None:
        said: list[str] = []
        severity = api.ILogger.Severity

        class Logger(api.ILogger):
            def __init__(self) -> None:
                super().__init__()

            def log(self, level: Any, message: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    said.append(message)
                elif level == severity.WARNING:
                    log.debug(message)

        self.errors = said
        self.logger: Any = Logger()

    def reason(self, otherwise: str) -> str:
        """TensorRT's errors in one line, or `otherwise` where it said nothing."""
        return "; ".join(" ".join(message.split()) for message in self.errors[-4:]) or otherwise


def build_engine(api: TensorRT, onnx_path: Path, *, capability: str | None = None) -> bytes:
    """Build the graph; its numbers are as precise as the graph says (strongly typed).

    Args:
        api: from `load_tensorrt` (builds for the GPU of this machine) or `load_tensorrt_rtx`.
        onnx_path: graph.onnx, its external data beside it.
        capability: TensorRT-RTX only, such as `SM89`: the GPU it is built for; none is needed here.

    Raises:
        EngineBuildFailed: it does not parse, or the builder made nothing.
    """
    said = Log(api)
    builder = api.Builder(said.logger)
    if builder is None:
        raise EngineBuildFailed(said.reason("TensorRT has no builder on this machine"))
    network = _strongly_typed(api, builder)
    parser = api.OnnxParser(network, said.logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [_told(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineBuildFailed("the graph does not parse: " + ("; ".join(errors) or said.reason("no cause given")))
    config = builder.create_builder_config()
    if capability is not None:
        _aim(api, config, capability)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineBuildFailed("the builder made nothing: " + said.reason("no cause given"))
    return bytes(serialized)


def _told(error: ParserError) -> str:
    return f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip(" :")


def _strongly_typed(api: TensorRT, builder: Builder) -> Network:
    # TensorRT 11 knows no other way and may drop the flag; 10.12 needs it.
    flag = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def _aim(api: TensorRT, config: BuilderConfig, capability: str) -> None:
    kinds = getattr(api, "ComputeCapability", None)
    kind = getattr(kinds, capability, None)
    if kind is None:
        raise EngineBuildFailed(f"this TensorRT cannot build for {capability}; it knows {_known(kinds)}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(kind, 0):
        raise EngineBuildFailed(f"this TensorRT refuses to build for {capability}")


def _known(kinds: Any) -> str:
    members = getattr(kinds, "__members__", {})
    return ", ".join(name for name in members if name.startswith("SM")) or "no other GPU than the one it runs on"


def open_engine(api: TensorRT, data: bytes) -> tuple[Engine, Log]:
    """Load a built engine. Raises `EngineRefused` with TensorRT's words: another GPU, another version, damage."""
    said = Log(api)
    runtime = api.Runtime(said.logger)
    if runtime is None:
        raise EngineRefused(said.reason("TensorRT has no runtime on this machine: there is no usable GPU"))
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineRefused(said.reason("TensorRT does not load this engine and gives no cause"))
    return engine, said


class TrtSession:
    """One engine on the current CUDA device and stream; fixed shapes. Not safe to share between threads."""

    def __init__(self, api: TensorRT, data: bytes, device: torch.device) -> None:
        self._api, self._device = api, device
        self._engine, self._said = open_engine(api, data)
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineRefused(self._said.reason("there is no memory for this engine"))
        self._context = context
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        kinds = {
            name: (tuple(self._engine.get_tensor_shape(name)), _torch_dtype(api, self._engine.get_tensor_dtype(name)))
            for name in names
        }
        output = api.TensorIOMode.OUTPUT
        self._outputs = {name: kinds[name] for name in names if self._engine.get_tensor_mode(name) == output}
        self._inputs = {name: kinds[name] for name in names if name not in self._outputs}
        self.input_names = tuple(self._inputs)

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input `name`."""
        shape, dtype = self._inputs[name]
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs by name, each in fresh memory, so that no step overwrites what another still reads."""
        results = {
            name: torch.empty(shape, dtype=dtype, device=self._device)
            for name, (shape, dtype) in self._outputs.items()
        }
        held = {name: x.to(self._device).contiguous() for name, x in inputs.items()}
        for name, x in (held | results).items():
            if not self._context.set_tensor_address(name, x.data_ptr()):
                raise EngineRefused(self._said.reason(f"the engine has no tensor {name}"))
        # torch's allocator hands memory out in stream order, so `held` may go before the kernels have run.
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise EngineRefused(self._said.reason("the engine did not run"))
        return results


def _torch_dtype(api: TensorRT, kind: Any) -> torch.dtype:
    kinds = api.DataType
    table = {
        kinds.FLOAT: torch.float32, kinds.HALF: torch.float16, kinds.BF16: torch.bfloat16, kinds.INT64: torch.int64,
        kinds.INT32: torch.int32,
    }
    return table[kind]
