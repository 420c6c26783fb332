"""What the worker says to its peers, in frames as `web.worker.link` has them; tensors follow by broadcast."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """First: who this is, and where all meet."""

    rank: int
    size: int
    port: int
    """Of the store, on this machine."""
    device: str
    """`cpu` or `cuda`; there each rank takes the device of its number."""
    threads: int
    deadline_s: float
    """What a rank waits for the others in a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A tensor that follows."""

    sizes: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Shape":
        return cls(sizes=tuple(tensor.shape), dtype=tensor.dtype)

    def empty(self, device: torch.device) -> torch.Tensor:
        return torch.empty(self.sizes, dtype=self.dtype, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A function that makes a network, as `modules.taken_apart` gives it; its tensors follow."""

    network: int
    parts: bytes
    tensors: tuple[Shape, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """These networks are not called any more."""

    networks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """A tensor that is the same for many calls; it follows where `shape` is said."""

    key: int
    shape: Shape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One step: the latents follow, then those of the others that are new.

    Of all ranks; or with the negative text that of the second alone, which the first gets by broadcast.
    """

    network: int
    time: float
    latents: Shape
    text: Lasting
    seen: Lasting | None
    is_negative: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """One latent frame of a clip: it follows."""

    network: int
    size: tuple[int, int]
    """Height and width in latents."""
    first: bool
    latent: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The last: all leave the group at once."""


Command = Join | Load | Forget | Call | Decode | Leave
