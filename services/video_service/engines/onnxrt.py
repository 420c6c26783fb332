"""A graph in ONNX Runtime on the CPU, torch tensors in and out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from video_service.engine_store.manifest import EngineRefused

_DTYPES = {
    "tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(int64)": torch.int64,
}


class OnnxSession:
    """One graph, loaded. Fixed shapes: anything else raises `EngineRefused`."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between graphs take the cores from torch, which runs between them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineRefused(f"ONNX Runtime cannot open {path.parent.name}: {error}") from error
        self._outputs = tuple(value.name for value in self._session.get_outputs())
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self.input_names = tuple(self._inputs)

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input `name`."""
        value = self._inputs[name]
        return torch.zeros(value.shape, dtype=_DTYPES[value.type])

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs by name, each in memory of its own."""
        arrays: dict[str, np.ndarray] = {name: x.detach().contiguous().numpy() for name, x in inputs.items()}
        try:
            results = self._session.run(None, arrays)
        except Exception as error:
            raise EngineRefused(f"ONNX Runtime failed: {error}") from error
        return {name: torch.from_numpy(x) for name, x in zip(self._outputs, results, strict=True)}
