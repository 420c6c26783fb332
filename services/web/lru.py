"""Values of known sizes in the order of their use: what every cache bounded in bytes stands on."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LeastRecentFirst(Generic[Key, Value]):
    """Used on one thread, or under its owner's lock. Iteration begins with the least recently used."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.num_bytes = 0
        """Of all that is kept."""

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._kept))

    def use(self, key: Key) -> Value | None:
        """The value, from now on the last one used; None where there is none."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def size_of(self, key: Key) -> int:
        """Bytes of the value, which is here."""
        return self._kept[key][1]

    def put(self, key: Key, value: Value, num_bytes: int) -> None:
        """Keep it in place of an earlier one, as the last one used."""
        self.drop(key)
        self._kept[key] = value, num_bytes
        self.num_bytes += num_bytes

    def drop(self, key: Key) -> None:
        """Keep it no longer, if it is here."""
        self.num_bytes -= self._kept.pop(key, (None, 0))[1]

    def drop_to(self, max_bytes: int) -> None:
        """Drop from the least recently used on, until no more than `max_bytes` are kept."""
        while self.num_bytes > max_bytes:
            self.drop(next(iter(self._kept)))
