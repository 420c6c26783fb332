"""LoRAs into a transformer's weights, once: what renders afterwards is an ordinary model."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from video_service.weights.host import sharing_copy
from video_service.weights.lora import Lora
from video_service.weights.lora_keys import KeyTable, Part
from web.worker.errors import ModelUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    key: str
    """In the file."""
    value: torch.Tensor
    """In float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    """Checked, and not yet computed: all of them together would be a second model in float32."""

    parameter: nn.Parameter
    delta: Callable[[], torch.Tensor]


class LoraUnusable(ModelUnavailable):
    """The file of `lora` cannot be read, or does not fit the model."""

    def __init__(self, lora: Lora, why: Exception) -> None:
        super().__init__(f"The LoRA {lora.label} cannot be used: {why}")
        self.lora = lora


def with_loras(module: nn.Module, loras: Sequence[Lora], own_name: Callable[[str], str]) -> nn.Module:
    """A copy of the module with the LoRAs in it, which shares all other weights with it. Raises as `merge_loras`."""
    adapted = sharing_copy(module)
    merge_loras(adapted, loras, own_name)
    return adapted


@torch.no_grad()
def merge_loras(transformer: nn.Module, loras: Sequence[Lora], own_name: Callable[[str], str]) -> None:
    """Add scale · alpha/rank · B·A of each LoRA to the weights that its file names, in float32, and round once.

    A file without an alpha has alpha = rank, unless diffusers' metadata say otherwise. Where anything is wrong, no
    weight is changed. Changed weights lie in memory of their own. `own_name`: see `KeyTable`.

    Raises:
        LoraUnusable: a file cannot be read, or one of its keys names no module or does not fit it: the message names
            the file and the first such key.
    """
    by_weight: dict[nn.Parameter, list[tuple[float, _Update]]] = {}
    for lora in loras:
        try:
            tensors, config = _read(lora)
            for name, parts in _by_module(transformer, tensors, own_name).items():
                for update in _updates(name, transformer.get_submodule(name), parts, config):
                    by_weight.setdefault(update.parameter, []).append((lora.scale, update))
        except (OSError, ValueError, TypeError, re.error, SafetensorError) as error:
            raise LoraUnusable(lora, error) from error
    for weight, updates in by_weight.items():
        merged = weight.float()
        for scale, update in updates:
            merged = merged + scale * update.delta().to(merged.device)
        weight.data = merged.to(weight.dtype)


def _read(lora: Lora) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    with safe_open(lora.path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    if not tensors:
        raise ValueError("there are no tensors in it")
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    for key, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{key} holds numbers that are not finite")
    if not isinstance(config, dict):
        raise ValueError("its metadata are not those of a LoRA")
    return tensors, {str(key).removeprefix("transformer."): value for key, value in config.items()}


def _by_module(
    transformer: nn.Module, tensors: Mapping[str, torch.Tensor], own_name: Callable[[str], str]
) -> dict[str, dict[Part, _Tensor]]:
    modules = transformer.named_modules()
    names = (name for name, module in modules if module._parameters.get("weight") is not None)
    table = KeyTable(names, own_name)
    found: dict[str, dict[Part, _Tensor]] = {}
    for key, value in tensors.items():
        place = table.place(key)
        if place is None:
            raise ValueError(f"{key} belongs to no layer of this model" + (
                "; DoRA is not supported" if "dora_scale" in key or "magnitude_vector" in key else ""
            ))
        parts = found.setdefault(place.module, {})
        if place.part in parts:
            raise ValueError(f"{key} and {parts[place.part].key} are the same")
        parts[place.part] = _Tensor(key=key, value=value.float())
    return found


def _updates(
    name: str, module: nn.Module, parts: Mapping[Part, _Tensor], config: Mapping[str, Any]
) -> Iterator[_Update]:
    if "A" in parts or "B" in parts or "B.bias" in parts:
        yield from _low_rank(name, module, parts, config)
    elif "alpha" in parts:
        raise ValueError(f"{parts['alpha'].key} stands alone: there are no matrices to go with it")
    for part in ("weight", "bias"):
        if part in parts:
            yield _whole(module, part, parts[part])


def _whole(module: nn.Module, name: str, tensor: _Tensor, strength: float = 1.0) -> _Update:
    parameter = module._parameters.get(name)
    if parameter is None:
        raise ValueError(f"{tensor.key} is for a {name}, and the layer has none")
    if tensor.value.shape != parameter.shape:
        raise ValueError(_misfit(tensor, parameter))
    return _Update(parameter=parameter, delta=lambda: strength * tensor.value)


def _low_rank(
    name: str, module: nn.Module, parts: Mapping[Part, _Tensor], config: Mapping[str, Any]
) -> Iterator[_Update]:
    if "A" not in parts or "B" not in parts:
        raise ValueError(f"{next(iter(parts.values())).key} lacks its other half: a LoRA has two matrices a layer")
    weight = module._parameters["weight"]
    assert weight is not None  # the key table has such modules only
    a, b = parts["A"].value, parts["B"].value
    # Of a convolution the kernel's sides are among A's inputs.
    if weight.ndim < 2 or a.ndim < 2 or not a.numel() or a.shape[1:] != weight.shape[1:]:
        raise ValueError(_misfit(parts["A"], weight))
    if b.ndim < 2 or b.shape[:2] != (len(weight), len(a)) or b.numel() != len(weight) * len(a):
        raise ValueError(_misfit(parts["B"], weight))
    strength = _strength(name, len(a), parts, config)
    where = weight.device  # the product of two small matrices is as large as the weight
    yield _Update(
        parameter=weight,
        delta=lambda: strength * (b.flatten(1).to(where) @ a.flatten(1).to(where)).reshape(weight.shape),
    )
    if "B.bias" in parts:
        yield _whole(module, "bias", parts["B.bias"], strength)


def _strength(name: str, rank: int, parts: Mapping[Part, _Tensor], config: Mapping[str, Any]) -> float:
    """alpha / rank: the file's own alpha, else that of peft's configuration, else 1."""
    if "alpha" in parts:
        if parts["alpha"].value.numel() != 1:
            raise ValueError(f"{parts['alpha'].key} is not a single number")
        return float(parts["alpha"].value) / rank
    if "lora_alpha" not in config:
        return 1.0
    alpha = float(config["lora_alpha"])
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):  # as peft does
            alpha = float(own)
            break
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _misfit(tensor: _Tensor, parameter: nn.Parameter) -> str:
    found, fitting = tuple(tensor.value.shape), tuple(parameter.shape)
    return f"{tensor.key} has the shape {found}, which does not fit the layer's {fitting}"
