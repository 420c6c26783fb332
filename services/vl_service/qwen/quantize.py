"""A language model in fewer bits by the libraries' own configs; its vision tower and its head stay in 16."""

from importlib.util import find_spec
from typing import Any, Literal

import torch

from vl_service.backend import CheckpointError

Quant = Literal["none", "fp8", "int8", "4bit"]
KEPT = ["model.visual", "visual", "lm_head"]
_NEEDS = {"fp8": "torchao", "int8": "torchao", "4bit": "bitsandbytes"}


def loading_options(quant: Quant, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """For `from_pretrained`. Raises `CheckpointError` for what is not installed."""
    if quant == "none":
        return {}
    missing = [name for name in (_NEEDS[quant], "accelerate") if find_spec(name) is None]
    if missing:
        raise CheckpointError(f"VL_QUANT={quant} needs {' and '.join(missing)}: pip install 'stillmotion[quant]'")
    return {"quantization_config": _config(quant, dtype), "device_map": {"": str(device)}}


def _config(quant: Quant, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if quant == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=KEPT)
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
    )

    # Weights alone: half the memory on any device, where sums in 8 bits need a GPU of a kind.
    weights = Int8WeightOnlyConfig() if quant == "int8" else Float8WeightOnlyConfig()
    return TorchAoConfig(weights, modules_to_not_convert=KEPT)


def memory_of(module: Any) -> int:
    """Bytes of its weights, those in fewer bits as they are kept."""
    return sum(_bytes_of(part.data) for part in {id(part): part for part in module.parameters()}.values()) + sum(
        part.nbytes for part in module.buffers())


def _bytes_of(weight: Any) -> int:
    parts = getattr(weight, "__tensor_flatten__", None)
    return weight.nbytes if parts is None else sum(_bytes_of(getattr(weight, name)) for name in parts()[0])
