"""A module as bytes without its tensors, and those apart, so that they may travel from device to device."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def taken_apart(value: Any, device: torch.device) -> tuple[bytes, list[torch.Tensor]]:
    """What rebuilds `value`, and its tensors on `device`, each once; the others are within the bytes."""
    places: dict[int, int] = {}
    tensors: list[torch.Tensor] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, torch.Tensor) or obj.device != device:
                return None
            if id(obj) not in places:
                places[id(obj)] = len(tensors)
                tensors.append(obj)
            return places[id(obj)], isinstance(obj, nn.Parameter)

    written = io.BytesIO()
    Pickler(written, pickle.HIGHEST_PROTOCOL).dump(value)
    return written.getvalue(), tensors


def put_together(parts: bytes, tensor_at: Callable[[int], torch.Tensor]) -> Any:
    """The value again, with these tensors in it."""
    made: dict[int, torch.Tensor] = {}

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: tuple[int, bool]) -> torch.Tensor:
            place, is_parameter = pid
            if place not in made:
                tensor = tensor_at(place)
                made[place] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
            return made[place]

    return Unpickler(io.BytesIO(parts)).load()
