"""A cache bounded in bytes, in which equal requests at one time share one computation.

    cache = ByteCache(max_bytes=2**28, size_of=len)
    value, found = cache.get(key, compute)          # found: memory, disk or miss
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from contracts.describe import CacheResult

V = TypeVar("V")


class SecondLevel(Protocol[V]):
    """Where what memory has no room for is kept."""

    def get(self, key: str) -> V | None: ...

    def put(self, key: str, value: V, /) -> None: ...


class ByteCache(Generic[V]):
    """Least recently used out first. Its methods may be called from any thread."""

    def __init__(self, *, max_bytes: int, size_of: Callable[[V], int], second: SecondLevel[V] | None = None) -> None:
        """With 0 bytes nothing is kept in memory; calls at one time share a computation all the same."""
        self._max_bytes, self._size_of, self._second = max_bytes, size_of, second
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, V] = OrderedDict()
        self._running: dict[str, Future[tuple[V, CacheResult]]] = {}
        self.num_bytes = 0
        """Of all that memory keeps."""

    def get(self, key: str, compute: Callable[[], V]) -> tuple[V, CacheResult]:
        """The value, and where it was. Raises what `compute` raises, to all who waited for it, and keeps nothing."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key], "memory"
            running, own = self._running.get(key), Future[tuple[V, CacheResult]]()
            if running is None:
                self._running[key] = own
        if running is not None:
            return running.result()[0], "memory"
        try:
            found = self._find(key, compute)
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(found)
            return found
        finally:
            with self._lock:
                del self._running[key]

    def _find(self, key: str, compute: Callable[[], V]) -> tuple[V, CacheResult]:
        value = None if self._second is None else self._second.get(key)
        if value is not None:
            self._keep(key, value)
            return value, "disk"
        value = compute()
        self._keep(key, value)
        if self._second is not None:
            self._second.put(key, value)
        return value, "miss"

    def _keep(self, key: str, value: V) -> None:
        size = self._size_of(value)
        if size > self._max_bytes:
            return
        with self._lock:
            self._kept[key] = value
            self.num_bytes += size
            while self.num_bytes > self._max_bytes:
                self.num_bytes -= self._size_of(self._kept.popitem(last=False)[1])
