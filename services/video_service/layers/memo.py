"""What frozen weights made of an input, kept for when the same input comes again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch


class Memo:
    """The tensors used last, up to so many bytes in sum. Whoever gets one must not change it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._made: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What was made for `key`, or what `make` makes now. Raises what `make` raises, and keeps nothing then."""
        if key not in self._made:
            self._made[key] = make()
        self._made.move_to_end(key)
        found = self._made[key]
        while sum(tensor.nbytes for tensor in self._made.values()) > self._max_bytes:
            self._made.popitem(last=False)
        return found
