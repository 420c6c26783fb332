"""The weights of an exported graph by their names in the file, and what tells two such files apart."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

_DTYPES: Mapping[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16, onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64, onnx.TensorProto.INT32: torch.int32, onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT8: torch.int8, onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Hashes of a file's parts."""

    nodes: str
    """Of every node, with what it computes and from what."""
    weights: Mapping[str, str]
    """Of each weight's shape, number format and content, by name."""

    def changed(self, other: "Fingerprint") -> list[str] | None:
        """The weights in which `other` is unlike this; None where it is unlike in more than weights' numbers."""
        if self.nodes != other.nodes or self.weights.keys() != other.weights.keys():
            return None
        return sorted(name for name, digest in self.weights.items() if other.weights[name] != digest)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Every initializer of the file by name; those in files beside it are mapped, not read.

    Raises `ValueError` for a number format that no export here has.
    """
    model = onnx.load(path, load_external_data=False)
    return {tensor.name: _tensor(tensor, path.parent) for tensor in model.graph.initializer}


def fingerprint(path: Path) -> Fingerprint:
    """Of an exported file. Reads every weight once. Raises `ValueError` as `read_weights` does."""
    nodes = hashlib.sha256()
    for node in onnx.load(path, load_external_data=False).graph.node:
        del node.metadata_props[:]  # where in which source file it came from
        node.doc_string = ""
        nodes.update(node.SerializeToString(deterministic=True) + b"\0")
    return Fingerprint(
        nodes=nodes.hexdigest(), weights={name: _digest(x) for name, x in read_weights(path).items()}
    )


def _tensor(stored: onnx.TensorProto, folder: Path) -> torch.Tensor:
    if stored.data_type not in _DTYPES:
        raise ValueError(f"{stored.name} has the number format {stored.data_type} of ONNX, which is not known here")
    dtype, shape = _DTYPES[stored.data_type], tuple(stored.dims)
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    if stored.data_location == onnx.TensorProto.EXTERNAL:
        where = {entry.key: entry.value for entry in stored.external_data}
        # Copy on write: torch wants memory that it could write to, and the file stays as it is.
        raw: np.ndarray = np.memmap(
            folder / where["location"], mode="c", offset=int(where.get("offset", 0)),
            shape=(math.prod(shape) * dtype.itemsize,), dtype=np.uint8,
        )
    else:
        raw = np.frombuffer(bytearray(onnx.numpy_helper.to_array(stored).tobytes()), dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).reshape(shape)


def _digest(x: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{x.dtype} {tuple(x.shape)}\0".encode())
    digest.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
