"""What frozen weights made of an input, kept for when the same input comes again."""

from collections.abc import Callable, Hashable

import torch

from web.lru import LeastRecentFirst


class Memo:
    """The tensors used last, up to so many bytes in sum. Whoever gets one must not change it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._made = LeastRecentFirst[Hashable, torch.Tensor]()

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What was made for `key`, or what `make` makes now. Raises what `make` raises, and keeps nothing then."""
        found = self._made.use(key)
        if found is None:
            found = make()
            self._made.put(key, found, found.nbytes)
            self._made.drop_to(self._max_bytes)
        return found
