"""What an opened engine is to who calls it; imports no library of engines, for who has none."""

from collections.abc import Mapping
from typing import Protocol

import torch


class Session(Protocol):
    """One loaded engine."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(
        self, inputs: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """All outputs by name: each written to its tensor of `into`, or else to fresh memory of its own.

        Raises `EngineRefused`.
        """
        ...

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input or output `name`."""
        ...
