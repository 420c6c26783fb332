"""What stays in memory: the least recently used goes first, and nothing goes while it is used."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from video_service.weights.memory import in_words
from web.lru import LeastRecentFirst

Held = TypeVar("Held")
Key = tuple[str, ...]
"""One that begins as another does holds some of that one's memory and goes with it."""


class DoesNotFit(Exception):
    """The budget cannot hold it, not even with everything gone that is not in use; the message says in bytes."""


class Residency(Generic[Held]):
    """Values of a known size within `budget` bytes. Used on one thread."""

    def __init__(self, budget: int, on_drop: Callable[[], None] = lambda: None) -> None:
        """`on_drop` is called once values were dropped, to give their memory back."""
        self.budget = budget
        self._on_drop = on_drop
        self._held = LeastRecentFirst[Key, Held]()
        self._users = Counter[Key]()

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    @property
    def num_bytes(self) -> int:
        """Of all that is held."""
        return self._held.num_bytes

    @property
    def keys(self) -> list[Key]:
        """What is held, the least recently used first."""
        return list(self._held)

    @contextmanager
    def using(self, key: Key, expected_bytes: int, make: Callable[[], tuple[Held, int]]) -> Iterator[Held]:
        """The value of `key`, made where it is not held, which stays for as long as the block lasts.

        `make` returns it with its real size. Raises `DoesNotFit`, and what `make` raises; then nothing was added.
        """
        value = self._held.use(key)
        if value is None:
            self.make_room(expected_bytes)
            value, num_bytes = make()
            self._held.put(key, value, num_bytes)
        self._users[key] += 1
        try:
            self._drop_until(self.budget)  # it may have turned out larger than expected
            yield value
        finally:
            self._users[key] -= 1

    def make_room(self, num_bytes: int) -> None:
        """Have `num_bytes` of the budget free. Raises `DoesNotFit`, with nothing dropped."""
        pinned = sum(self._held.size_of(key) for key, users in self._users.items() if users)
        if pinned + num_bytes > self.budget:
            in_use = f", of which {in_words(pinned)} are in use" if pinned else ""
            raise DoesNotFit(f"it needs {in_words(num_bytes)}, and there are {in_words(self.budget)}{in_use}")
        self._drop_until(self.budget - num_bytes)

    def drop(self, key: Key) -> None:
        """Drop it, and what holds its memory, unless that is in use."""
        if key in self._held and self._drop(key):
            self._on_drop()

    def trim(self) -> None:
        """Come back within the budget."""
        self._drop_until(self.budget)

    def drop_unused(self) -> bool:
        """Drop all that is not in use; whether there was anything."""
        return self._drop_until(-1)

    def _drop_until(self, num_bytes: int) -> bool:
        dropped = False
        for key in self.keys:
            if self.num_bytes <= num_bytes:
                break
            dropped |= key in self._held and self._drop(key, num_bytes)
        if dropped:
            self._on_drop()
        return dropped

    def _drop(self, key: Key, until: int = -1) -> bool:
        """First what holds the memory of `key`, then itself, as far as none is in use."""
        family = sorted((other for other in self._held if other[: len(key)] == key), key=len, reverse=True)
        dropped = False
        for other in family:
            if self._users[other] or self.num_bytes <= until:
                break
            self._held.drop(other)
            del self._users[other]
            dropped = True
        return dropped
