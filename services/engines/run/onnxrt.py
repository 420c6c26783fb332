"""A graph in ONNX Runtime on the CPU, torch tensors in and out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from engines.store.manifest import EngineRefused

_DTYPES = {
    "tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32, "tensor(bool)": torch.bool,
}
_ELEMENTS = {
    torch.float32: np.float32, torch.float16: np.float16, torch.int64: np.int64, torch.int32: np.int32,
    torch.bool: np.bool_,
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
        self._outputs = {value.name: value for value in self._session.get_outputs()}
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self.input_names, self.output_names = tuple(self._inputs), tuple(self._outputs)

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input or output `name`."""
        value = self._inputs.get(name) or self._outputs[name]
        return torch.zeros(value.shape, dtype=_DTYPES[value.type])

    def run(
        self, inputs: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """All outputs by name: each written to its tensor of `into`, or else to memory of its own."""
        results = {name: self.zeros(name) for name in self._outputs} | dict(into or {})
        held = {name: x.detach().contiguous() for name, x in inputs.items()}
        binding = self._session.io_binding()
        try:
            for bind, tensors in ((binding.bind_input, held), (binding.bind_output, results)):
                for name, x in tensors.items():
                    bind(name, "cpu", 0, _ELEMENTS[x.dtype], tuple(x.shape), x.data_ptr())
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineRefused(f"ONNX Runtime failed: {error}") from error
        return results
