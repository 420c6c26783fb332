"""Every vision-language service of this deployment as one: the least busy healthy address answers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from contracts.chat import ChatEnd, ChatRequest
from contracts.describe import DescribeRequest, DescribeResponse
from contracts.models import Health, VLModelInfo
from gateway.services.clients import VLClient
from gateway.services.errors import ServiceError
from gateway.services.listing import every_model
from gateway.services.pool import Member, Pool

_CALLERS_AT_ONCE = 2  # of each address; the service takes more, so a job never finds all of its places taken
_CALLERS_WAITING = 8  # each with its picture in memory
_ASK_THE_NEXT = frozenset({"unavailable", "misconfigured", "busy"})
_STAND_BACK_S = 15.0  # longer than a job pauses that found the service full


class Describers:
    """What `VLClient` does, over several addresses."""

    def __init__(self, pool: Pool[VLClient]) -> None:
        self.pool = pool
        self._callers = asyncio.Semaphore(_CALLERS_AT_ONCE * len(pool.members))
        self._num_waiting = 0
        self._no_job_waits = asyncio.Event()  # cleared when a job found the service full
        self._no_job_waits.set()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.pool.aclose()

    async def health(self) -> Health:
        """Ready when one address is."""
        return await self.pool.health()

    async def models(self) -> list[VLModelInfo]:
        """What they run; raises `ServiceError` where none answers."""
        return await every_model(self.pool, VLClient.models)

    @asynccontextmanager
    async def callers_turn(self) -> AsyncIterator[None]:
        """Where somebody waits for the answer: the block, from decoding the picture on, runs for few at a time, so that
        jobs go before.

        Raises:
            ServiceError: `busy`, at once, where too many wait already.
        """
        if self._num_waiting >= _CALLERS_WAITING:
            raise ServiceError(
                "vl_service", "busy", f"{_CALLERS_WAITING} callers wait for a description already", wait_s=2.0
            )
        self._num_waiting += 1
        try:
            await self._callers.acquire()
        finally:
            self._num_waiting -= 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STAND_BACK_S):
                    await self._no_job_waits.wait()
            yield
        finally:
            self._callers.release()

    async def describe_for_job(self, request: DescribeRequest) -> DescribeResponse:
        """As `describe`; after one that found no room, callers stand back until a job got its answer."""
        try:
            answer = await self.describe(request)
        except ServiceError as error:
            if error.kind == "busy":
                self._no_job_waits.clear()
                for member in self.pool.members:  # not by callers' calls: their crowd would keep jobs from being begun
                    member.full(error.said, error.wait_s)
            raise
        self._no_job_waits.set()
        return answer

    async def describe(self, request: DescribeRequest) -> DescribeResponse:
        """Answer the tasks: the best address, then the next ones while an address is away or full.

        Raises:
            ServiceError: of the last one that was asked; none is asked twice.
        """
        problem: ServiceError | None = None
        for member in self.pool.ranked():
            if problem is not None and not member.healthy:
                break  # those put aside are asked only when they are all there is
            try:
                with member.at_work() as client:
                    answer = await client.describe(request)
            except ServiceError as error:
                self._note(error, member)
                if error.kind not in _ASK_THE_NEXT:
                    raise
                problem = error
                continue
            member.answered()
            return answer
        assert problem is not None, "there is at least one address"
        raise problem

    async def chat(self, request: ChatRequest, model: str | None = None) -> AsyncGenerator[str | ChatEnd]:
        """The reply of the best address that runs `model`, of the next one while nothing has come and one is away or
        full. Raises `ServiceError`, of the last one that was asked.
        """
        problem: ServiceError | None = None
        for member in self.pool.ranked(model=model):
            if problem is not None and not member.healthy:
                break
            begun = False
            try:
                with member.at_work() as client:
                    async with aclosing(client.chat(request)) as reply:
                        async for piece in reply:
                            begun = True
                            yield piece
            except ServiceError as error:
                self._note(error, member)
                if begun or error.kind not in _ASK_THE_NEXT:
                    raise
                problem = error
                continue
            member.answered()
            return
        assert problem is not None, "there is at least one address"
        raise problem

    def _note(self, error: ServiceError, member: Member[VLClient]) -> None:
        if error.kind in ("unavailable", "misconfigured"):
            member.failed(error.said, silent=error.heard != "answered")
        elif error.kind != "busy":
            member.answered()
