"""Weights on the host: a model that left the device comes back without its files, and networks take turns on it."""

import copy
import itertools
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from video_service.weights.residency import Key, Residency

Part = TypeVar("Part", bound=nn.Module)


class HostCopies:
    """The parts that were read last, within a budget of the host's memory; in pinned memory where there is CUDA, from
    which they reach the device at the full speed of its bus."""

    def __init__(self, budget: int) -> None:
        self._kept: Residency[nn.Module] = Residency(budget)

    def part(self, key: Key, read: Callable[[], Any]) -> Any:
        """The part, read where it is not kept: a module of its own over the kept memory, which no one may write to."""
        try:
            with self._kept.using(key, 0, lambda: pinned(read())) as part:
                return sharing_copy(part)
        finally:
            self._kept.trim()


def sharing_copy(module: Part) -> Part:
    """A module of its own parameters over the same memory: those that are given other `data` leave the first alone."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    memo |= {id(weight): nn.Parameter(weight.data, requires_grad=False) for weight in module.parameters()}
    return copy.deepcopy(module, memo)


def pinned(part: nn.Module) -> tuple[nn.Module, int]:
    """The part with its parameters in pinned memory, and the bytes that they take there."""
    weights = list(part.parameters())
    if not torch.cuda.is_available():
        return part, sum(weight.nbytes for weight in weights)
    for weight in weights:
        weight.data = weight.data.pin_memory()
    return part, sum(1 << (weight.nbytes - 1).bit_length() for weight in weights if weight.nbytes)  # as torch rounds up


class Slot:
    """The device's memory for one network, in which several of the same shape take turns; the others wait on the host.

    The next one's weights are copied layer by layer, each behind the last use of what lies in its place: on CUDA by a
    stream of its own, while later layers still compute. Used on one thread.
    """

    def __init__(
        self, like: nn.Module, layers: Callable[[nn.Module], Sequence[nn.Module]], device: torch.device
    ) -> None:
        """`like` is any of them, on the host. `layers`: a network's parts in the order of their use, each used once in
        a run; what else it has is one more part, used from the begin of a run to its end."""
        # On another device it takes memory of its own there, on this one it has to be given some.
        self.network: Any = copy.deepcopy(like) if device.type == "cpu" else sharing_copy(like).to(device)
        self._parts_of = lambda network: _apart(network, layers(network))
        self._parts = [_Part(weights) for weights in self._parts_of(self.network)]
        self._hosts: weakref.WeakKeyDictionary[nn.Module, list[list[torch.Tensor]]] = weakref.WeakKeyDictionary()
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._now: nn.Module = like
        self._next: nn.Module | None = None
        self._runs_left, self._after = 0, like
        self._waits: list[tuple[Any, Any]] = []
        self._waited_s = 0.0
        hooked = [*layers(self.network), self.network]
        for part, module in zip(self._parts, hooked, strict=True):
            module.register_forward_pre_hook(lambda *_, part=part: self._need(part))
            module.register_forward_hook(lambda *_, part=part: self._let_go(part))

    def expect(self, runs: int, after: nn.Module) -> None:
        """In the last of the next `runs` the network `after` takes the place of what has run."""
        self._runs_left, self._after = runs, after

    def run(self, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call the network, one of those on the host, on the device."""
        self._now = network
        self._runs_left -= 1
        self._next = self._after if self._runs_left == 0 and self._after is not network else None
        return self.network(*args, **kwargs)

    def waited_s(self) -> float:
        """Seconds that runs waited for weights since this was asked last; waits for the device."""
        if self._waits:
            self._waits[-1][1].synchronize()
        waited = self._waited_s + sum(begin.elapsed_time(end) for begin, end in self._waits) / 1000
        self._waits, self._waited_s = [], 0.0
        return waited

    def _need(self, part: "_Part") -> None:
        if part.holds is not self._now:
            self._copy(part, self._now)
        if part.there is not None:
            stream, begin, end = torch.cuda.current_stream(), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            stream.wait_event(part.there)
            end.record(stream)
            self._waits.append((begin, end))
            part.there = None

    def _let_go(self, part: "_Part") -> None:
        if self._next is not None:
            self._copy(part, self._next)

    def _copy(self, part: "_Part", network: nn.Module) -> None:
        kept = self._hosts.get(network)
        if kept is None:
            kept = self._hosts[network] = self._parts_of(network)
        source = kept[self._parts.index(part)]
        if self._side is None:  # nothing computes meanwhile
            started_s = time.perf_counter()
            part.take(source)
            self._waited_s += time.perf_counter() - started_s
        else:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                part.take(source)
                part.there = self._side.record_event()
        part.holds = network


@dataclass(slots=True, eq=False)
class _Part:
    """Weights on the device, whose they are, and what has to happen before they are there."""

    weights: list[torch.Tensor]
    holds: nn.Module | None = None
    there: Any = field(default=None)

    def take(self, source: Sequence[torch.Tensor]) -> None:
        for own, given in zip(self.weights, source, strict=True):
            own.copy_(given, non_blocking=True)


def _apart(network: nn.Module, layers: Sequence[nn.Module]) -> list[list[torch.Tensor]]:
    """The tensors of each layer, and those of none."""
    parts = [[weight.data for weight in itertools.chain(layer.parameters(), layer.buffers())] for layer in layers]
    taken = {id(weight) for layer in layers for weight in itertools.chain(layer.parameters(), layer.buffers())}
    own = itertools.chain(network.parameters(), network.buffers())
    return [*parts, [weight.data for weight in own if id(weight) not in taken]]


@dataclass(frozen=True, slots=True)
class Turn:
    """A network on the host that runs in the slot; called as the network is."""

    slot: Slot
    module: Any

    @property
    def config(self) -> Any:
        return self.module.config

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.slot.run(self.module, *args, **kwargs)
