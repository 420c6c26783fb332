"""TensorRT without TensorRT: calls are checked against a recorded surface and written down, engines are Python.

An engine here is a function over the memory at the addresses that were set, so that what a session passes to TensorRT
is what gets computed. Anything that the recorded package has not is an AttributeError, as it would be there.
"""

import ctypes
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.trt_surface.surface import Surface

Compute = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Inputs by name to outputs by name."""


@dataclass(kw_only=True)
class Script:
    """What the library is to do."""

    parse_errors: Sequence[str] = ()
    plan: bytes | None = b"plan"
    loads: bool = True
    says: Sequence[str] = ()
    """Errors that are logged before anything fails."""
    context: bool = True
    runs: bool = True
    inputs: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    """Name to shape and `DataType` member."""
    outputs: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    compute: Compute = dict
    weights: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Name to count and `DataType` member; not empty: the engine is refittable."""
    missing: Sequence[str] = ()
    """Asked for by the refitter until they are given."""
    serializes: bool = True
    streamable: int = 0
    working: int = 0
    scratch: int = 0
    timings: bytes = b"timings"


class FakeTensorRT:
    """Stands for the module."""

    def __init__(self, surface: Surface, script: Script | None = None) -> None:
        self.surface, self.script = surface, script or Script()
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        self.capturing = False
        self.refitted: dict[str, np.ndarray] = {}
        self.__version__ = surface.version
        self._enums = {
            name: enum.IntEnum(name, kind["members"])
            for name, kind in surface.classes.items() if "members" in kind
        }
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.severity = enum.IntEnum("Severity", surface.classes["ILogger"]["classes"]["Severity"]["members"])
        self.ILogger = type("ILogger", (), {"Severity": self.severity})

    def __getattr__(self, name: str) -> Any:
        if name in self._enums:
            return self._enums[name]
        if name not in self.surface.classes:
            raise AttributeError(f"{self.surface.name} has no {name}")
        make = _MAKERS[name]
        return lambda *arguments: self._construct(name, make, arguments)

    def called(self, kind: str, method: str) -> list[tuple[Any, ...]]:
        """The arguments of every such call."""
        return [arguments for where, name, arguments in self.calls if (where, name) == (kind, method)]

    def note(self, kind: str, method: str, arguments: tuple[Any, ...]) -> None:
        """Write a call down; it must be one that the package takes."""
        ways = self.surface.overloads(kind, method)
        if ways and not any(_fits(way, len(arguments)) for way in ways):
            raise TypeError(f"{self.surface.name}: {kind}.{method} does not take {len(arguments)} arguments: {ways}")
        self.calls.append((kind, method, arguments))

    def object(self, kind: str, values: dict[str, Any], **methods: Callable[..., Any]) -> Any:
        return _Object(self, kind, values, methods)

    def fail(self, logger: Any) -> None:
        for words in self.script.says:
            logger.log(self.severity["ERROR"], words)

    def _construct(self, name: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.note(name, "__init__", arguments)
        return make(self, *arguments)


class _Object:
    """One object of a recorded class: only its properties and methods exist."""

    def __init__(
        self, api: FakeTensorRT, kind: str, values: dict[str, Any], methods: Mapping[str, Callable[..., Any]]
    ) -> None:
        surface = api.surface
        assert values.keys() <= surface.properties(kind), (kind, values.keys() - surface.properties(kind))
        assert methods.keys() <= surface.methods(kind), (kind, methods.keys() - surface.methods(kind))
        self.__dict__.update(_api=api, _kind=kind, values=values, _methods=methods)

    def __getattr__(self, name: str) -> Any:
        if name in self.values:
            found = self.values[name]
            return found(self.values) if callable(found) else found  # a function of the other values
        if name not in self._methods:
            raise AttributeError(f"{self._api.surface.name}: {self._kind} has no {name}")

        def call(*arguments: Any) -> Any:
            self._api.note(self._kind, name, arguments)
            return self._methods[name](*arguments)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._api.surface.properties(self._kind):
            raise AttributeError(f"{self._api.surface.name}: {self._kind} has no {name}")
        self.values[name] = value


def _fits(way: Mapping[str, bool], count: int) -> bool:
    return sum(not optional for optional in way.values()) <= count <= len(way)


def _builder(api: FakeTensorRT, logger: Any) -> Any:
    def build(network: Any, config: Any) -> bytes | None:
        api.fail(logger)
        monitor = config.values.get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building", None, 2)
            if not (monitor.step_complete("Building", 0) and monitor.step_complete("Building", 1)):
                return None
            monitor.phase_finish("Building")
        return api.script.plan

    return api.object(
        "Builder", {}, create_network=lambda flags=0: api.object("INetworkDefinition", {"num_layers": 1}),
        create_builder_config=lambda: _config(api), build_serialized_network=build,
    )


def _config(api: FakeTensorRT) -> Any:
    caches: list[Any] = []

    def set_cache(cache: Any, ignore_mismatch: bool) -> bool:
        if cache.values["name"] == b"foreign":
            return False
        caches.append(cache)
        return True

    rtx = {"set_compute_capability": lambda capability, index: True} if api.surface.name == "tensorrt-rtx" else {}
    return api.object(
        "IBuilderConfig", {}, set_flag=lambda flag: None, create_timing_cache=lambda blob: _timings(api, bytes(blob)),
        set_timing_cache=set_cache, get_timing_cache=lambda: caches[-1] if caches else None, **rtx,
    )


def _timings(api: FakeTensorRT, blob: bytes) -> Any:
    combined = [blob]
    cache = api.object(
        "ITimingCache", {}, combine=lambda other, ignore: combined.append(other.values["name"]) or True,
        serialize=lambda: b"+".join(dict.fromkeys(part for part in (api.script.timings, *combined) if part)),
    )
    cache.values["name"] = blob
    return cache


def _parser(api: FakeTensorRT, network: Any, logger: Any) -> Any:
    errors = api.script.parse_errors
    return api.object(
        "OnnxParser", {"num_errors": len(errors)}, parse_from_file=lambda model: not errors,
        get_error=lambda index: api.object(
            "ParserError", {}, desc=lambda: errors[index], node_name=lambda: "/node", node_operator=lambda: "Conv"
        ),
    )


def _runtime(api: FakeTensorRT, logger: Any) -> Any:
    def deserialize(data: Any) -> Any:
        api.fail(logger)
        return _engine(api, logger) if api.script.loads else None

    rtx = {"get_engine_validity": lambda data: (2, 2)} if api.surface.name == "tensorrt-rtx" else {}
    return api.object("Runtime", {}, deserialize_cuda_engine=deserialize, **rtx)


def _engine(api: FakeTensorRT, logger: Any) -> Any:
    script = api.script
    kinds = {**script.inputs, **script.outputs}
    values: dict[str, Any] = {
        "num_io_tensors": len(kinds), "refittable": bool(script.weights), "device_memory_size_v2": script.working,
    }
    if script.streamable:
        values |= {
            "streamable_weights_size": script.streamable, "weight_streaming_budget_v2": script.streamable,
            "device_memory_size_v2": lambda now: script.working + (
                script.scratch if now["weight_streaming_budget_v2"] < script.streamable else 0
            ),
        }
    modes = api.TensorIOMode
    return api.object(
        "ICudaEngine", values, get_tensor_name=lambda index: list(kinds)[index],
        get_tensor_mode=lambda name: modes.OUTPUT if name in script.outputs else modes.INPUT,
        get_tensor_shape=lambda name: kinds[name][0],
        get_tensor_dtype=lambda name: getattr(api.DataType, kinds[name][1]),
        create_runtime_config=lambda: _runtime_config(api),
        serialize=lambda: (script.plan or b"") + b", refitted" * bool(api.refitted) if script.serializes else None,
        create_execution_context=lambda config=None: _context(api, logger) if script.context else None,
    )


def _runtime_config(api: FakeTensorRT) -> Any:
    if api.surface.name != "tensorrt-rtx":
        return api.object("IRuntimeConfig", {})
    cache = api.object("IRuntimeCache", {}, deserialize=lambda blob: True, serialize=lambda: b"kernels")
    return api.object(
        "IRuntimeConfig", {}, create_runtime_cache=lambda: cache, set_runtime_cache=lambda cache: True
    )


def _context(api: FakeTensorRT, logger: Any) -> Any:
    addresses: dict[str, int] = {}
    script = api.script

    def set_address(name: str, memory: int) -> bool:
        addresses[name] = memory
        return name in script.inputs or name in script.outputs

    def execute(stream: int) -> bool:
        api.fail(logger)
        if script.runs and not api.capturing:
            compute_at(script, addresses)
        return script.runs

    return api.object("IExecutionContext", {}, set_tensor_address=set_address, execute_async_v3=execute)


def compute_at(script: Script, addresses: Mapping[str, int]) -> None:
    """Run the engine over the memory at these addresses."""
    found = script.compute({name: _memory(addresses[name], *kind) for name, kind in script.inputs.items()})
    for name, kind in script.outputs.items():
        _memory(addresses[name], *kind)[...] = found[name]


def _memory(address: int, shape: tuple[int, ...], kind: str) -> np.ndarray:
    dtype = {"FLOAT": np.dtype(np.float32), "INT64": np.dtype(np.int64), "HALF": np.dtype(np.float16)}[kind]
    count = int(np.prod(shape))
    held = (ctypes.c_byte * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(held, dtype=dtype).reshape(shape)


def _weights(api: FakeTensorRT, kind: Any, address: int, count: int) -> Any:
    found = api.object("Weights", {"dtype": kind, "size": count})
    found.values["numbers"] = _memory(address, (count,), kind.name) if address else None
    return found


def _refitter(api: FakeTensorRT, engine: Any, logger: Any) -> Any:
    script, given = api.script, {}

    def refit() -> bool:
        api.fail(logger)
        if script.runs:
            api.refitted |= {name: weights.values["numbers"].copy() for name, weights in given.items()}
        return script.runs

    def missing() -> list[str]:
        return [name for name in script.missing if name not in given]

    return api.object(
        "Refitter", {}, get_all_weights=lambda: list(script.weights), get_missing_weights=missing,
        get_weights_prototype=lambda name: _weights(
            api, getattr(api.DataType, script.weights[name][1]), 0, script.weights[name][0]
        ),
        set_named_weights=lambda name, weights: given.update({name: weights}) or True, refit_cuda_engine=refit,
    )


_MAKERS: dict[str, Callable[..., Any]] = {
    "Builder": _builder, "OnnxParser": _parser, "Runtime": _runtime, "Refitter": _refitter, "Weights": _weights,
}
