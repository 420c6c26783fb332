"""The changes of one render, kept in order so that any number of readers can follow at their own speed."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from contracts.videos import TERMINAL_RENDER_STATES, RenderStatus

MAX_KEPT_EVENTS = 512


class StatusHistory:
    """The last `MAX_KEPT_EVENTS` statuses under increasing ids.

    Readers hold a cursor and no queue: a slow one costs nothing and skips what fell out. Used on one event loop.
    """

    def __init__(self, first: RenderStatus) -> None:
        # Ids start at the clock, so that they go on increasing when the service restarts and forgets its counters.
        self._last_id = time.time_ns() // 1_000_000
        self._events: deque[tuple[int, RenderStatus]] = deque([(self._last_id, first)], maxlen=MAX_KEPT_EVENTS)
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def latest(self) -> RenderStatus:
        return self._events[-1][1]

    def append(self, status: RenderStatus) -> None:
        """Add a change and wake the readers; a status equal to the latest is no change."""
        if status == self.latest:
            return
        self._last_id += 1
        self._events.append((self._last_id, status))
        self._wake()

    def close(self) -> None:
        """End every reader, now and later: the service stops."""
        self._closed = True
        self._wake()

    async def follow(self, after: int | None = None) -> AsyncIterator[tuple[int, RenderStatus]]:
        """Yield `(id, status)`: what is kept since event `after` (by default only the latest), then every change.

        Ends after a terminal status.
        """
        cursor = after if after is not None and after <= self._last_id else self._last_id - 1
        while True:
            changed = self._changed  # taken before reading, so that no change slips between reading and waiting
            for event_id, status in list(self._events):
                if event_id > cursor:
                    cursor = event_id
                    yield event_id, status
            if changed is self._changed and (self._closed or self.latest.state in TERMINAL_RENDER_STATES):
                return
            await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
