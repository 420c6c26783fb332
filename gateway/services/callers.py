"""Callers who wait for descriptions: as many at one time as the services answer, a few behind them, jobs before all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio

from gateway.services.errors import ServiceError
from gateway.services.pool import Pool

_WAITING = 8  # at least; each with its picture in memory
_STAND_BACK_S = 15.0  # longer than a job pauses that found the service full


class Callers:
    """Whose turn it is. Used on one event loop."""

    def __init__(self, pool: Pool[Any], no_job_waits: asyncio.Event) -> None:
        self._pool = pool
        self._no_job_waits = no_job_waits
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def places(self) -> int:
        """How many have their turn at one time: what the healthy addresses say they answer at once, summed."""
        members = [member for member in self._pool.members if member.healthy] or self._pool.members
        return sum(member.places for member in members)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The block, from decoding the picture on, runs for few at a time, so that jobs go before.

        Raises:
            ServiceError: `busy`, at once, where too many wait already.
        """
        limiter, caller = self._counted(), object()  # what ends the block may be another task than began it
        waiting, most = limiter.statistics().tasks_waiting, max(_WAITING, self.places)
        if waiting >= most:
            raise ServiceError("vl_service", "busy", f"{waiting} callers wait for a description already", wait_s=2.0)
        await limiter.acquire_on_behalf_of(caller)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STAND_BACK_S):
                    await self._no_job_waits.wait()
            yield
        finally:
            limiter.release_on_behalf_of(caller)
            self._counted()

    def _counted(self) -> anyio.CapacityLimiter:
        """As many places as there are now; who waits gets those that are new."""
        places = self.places
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(places)
        elif self._limiter.total_tokens != places:
            self._limiter.total_tokens = places
        return self._limiter
