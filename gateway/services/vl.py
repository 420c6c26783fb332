"""Descriptions: from what was written before where that answers, else from the least busy healthy address."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from operator import attrgetter

import httpx
import sqlalchemy as sa
from anyio.to_thread import run_sync as off_loop
from httpx_sse import SSEError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from contracts.chat import ChatEnd, ChatEvent, ChatRequest
from contracts.describe import DescribeRequest, DescribeResponse, TaskResult
from contracts.models import VLModelInfo, VLModelList
from gateway.database.database import Database, metadata, put
from gateway.services.callers import Callers
from gateway.services.clients import SHORT_TIMEOUT_S, ServiceClient, kind_of
from gateway.services.errors import ServiceError
from gateway.services.pool import Member, Pool

log = logging.getLogger(__name__)

_LOAD = attrgetter("load")  # of a member
_ASK_THE_NEXT = frozenset({"unavailable", "misconfigured", "busy"})
MAX_ENTRIES = 10_000  # some 5 MB
_PRUNE_EVERY = 100  # entries written between two looks at their number
_prompts = sa.Table(
    "prompts", metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("results", sa.JSON, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False, index=True),
)
# Raised when the vision-language service writes other texts with the same model: what was kept is then asked anew.
_WORDING = 3


class VLClient(ServiceClient):
    """The vision-language service at one address."""

    def __init__(self, http: httpx.AsyncClient, *, describe_timeout_s: float) -> None:
        super().__init__("vl_service", http)
        self._describe_timeout_s = describe_timeout_s

    async def models(self) -> list[VLModelInfo]:
        """What it runs; one attempt."""
        return (await self._send("GET", "/v1/models", VLModelList, timeout_s=SHORT_TIMEOUT_S)).data

    async def describe(self, request: DescribeRequest) -> DescribeResponse:
        """Answer the tasks; one attempt."""
        return await self._send(
            "POST", "/v1/describe", DescribeResponse, timeout_s=self._describe_timeout_s, asked=request)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[str | ChatEnd]:
        """Pieces of the reply as they are written, then its end; one attempt. Closed early, the model stops."""
        try:
            async with self._events("POST", "/v1/chat", read_s=self._describe_timeout_s, asked=request) as events:
                async for event in events.aiter_sse():
                    told = ChatEvent.model_validate_json(event.data, extra="ignore")
                    if told.error is not None:
                        raise ServiceError(
                            self.service, kind_of(told.error.status), told.error.detail, reported=told.error,
                            wait_s=told.error.retry_after_s)
                    if told.text:
                        yield told.text
                    if told.end is not None:
                        yield told.end
                        return
        except (SSEError, ValidationError) as error:
            raise ServiceError(self.service, "failed", f"answered POST /v1/chat unreadably: {error}") from error
        raise ServiceError(self.service, "unavailable", "broke off in the middle of a reply")


class Describers:
    """What `VLClient` does, over several addresses."""

    def __init__(self, pool: Pool[VLClient]) -> None:
        self.pool = pool
        self._no_job_waits = asyncio.Event()  # cleared when a job found the service full: callers stand back
        self._no_job_waits.set()
        self._callers = Callers(pool, self._no_job_waits)

    def callers_turn(self) -> AbstractAsyncContextManager[None]:
        """See `Callers.turn`: where somebody waits for the answer."""
        return self._callers.turn()

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
        for member in self.pool.ranked(load=_LOAD):
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
        for member in self.pool.ranked(model=model, load=_LOAD):
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


def cache_key(
    request: DescribeRequest, picture_sha256: str | None, models: Sequence[VLModelInfo], *, any_seed: bool
) -> str:
    """SHA-256 over everything that the answer depends on; `any_seed` leaves the seed out."""
    asked = request.model_dump(mode="json", exclude={"image", "seed"} if any_seed else {"image"})
    writers = sorted("@".join(filter(None, [model.id, model.revision, model.wording])) for model in models)
    text = json.dumps(
        {"asked": asked, "picture": picture_sha256, "writers": writers, "wording": _WORDING}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


class PromptCache:
    """Answers by key, the least recently used of which go first. Methods block: call them off the event loop."""

    def __init__(self, database: Database, max_entries: int = MAX_ENTRIES) -> None:
        self._database = database
        self._max_entries = max_entries
        self._written = 0

    def find(self, key: str) -> list[TaskResult] | None:
        """The answer under this key, `None` where there is none."""
        with self._database.writing() as connection:
            row = connection.execute(sa.select(_prompts.c.results).where(_prompts.c.key == key)).first()
            if row is None:
                return None
            connection.execute(_prompts.update().where(_prompts.c.key == key).values(used_at=time.time()))
        return [TaskResult.model_validate(result) for result in row[0]]

    def keep(self, keys: Sequence[str], results: Sequence[TaskResult]) -> None:
        """Remember an answer under each of the keys."""
        values = {"results": [result.model_dump(mode="json") for result in results], "used_at": time.time()}
        with self._database.writing() as connection:
            for key in sorted(keys):  # in one order everywhere: two writers never wait for each other's rows
                put(connection, _prompts, {"key": key, **values})
            self._written += len(keys)
            if self._written >= min(_PRUNE_EVERY, self._max_entries):
                self._written = 0
                self._prune(connection)

    def _prune(self, connection: sa.Connection) -> None:
        # What another process has in hand is left to it: waiting for it here could be waiting in a circle.
        newest_first = _prompts.c.used_at.desc()
        too_many = sa.select(_prompts.c.key).order_by(newest_first).offset(self._max_entries)
        keys = list(connection.scalars(too_many.with_for_update(skip_locked=True)))
        connection.execute(_prompts.delete().where(_prompts.c.key.in_(keys)))


class Prompter:
    """Asks about pictures, and asks only once."""

    def __init__(
        self, describers: Describers, cache: PromptCache, known_models: Callable[[], Awaitable[list[VLModelInfo]]],
        looked_up: Callable[[bool], None],
    ) -> None:
        self._describers = describers
        self._cache = cache
        self._known_models = known_models
        self._looked_up = looked_up  # told of every hit (true) and miss

    async def describe(
        self, request: DescribeRequest, picture_sha256: str | None, *, any_seed: bool
    ) -> Sequence[TaskResult]:
        """The answers to the tasks; with `any_seed` also those that another seed led to.

        Raises:
            ServiceError: as `Describers.describe_for_job`.
        """
        keys = await self._keys(request, picture_sha256, any_seed=any_seed)
        found = await self._find(keys)
        if found is None:
            answer = await self._describers.describe_for_job(request)
            found = answer.results
        await self._keep(keys, found)  # also what was found: under this seed it is to be found again
        return found

    async def _keys(self, request: DescribeRequest, picture_sha256: str | None, *, any_seed: bool) -> list[str]:
        models = await self._known_models()
        if not models:
            return []  # who would answer is not known, so no earlier answer counts as theirs
        own = cache_key(request, picture_sha256, models, any_seed=False)
        return [own, cache_key(request, picture_sha256, models, any_seed=True)] if any_seed else [own]

    async def _find(self, keys: Sequence[str]) -> Sequence[TaskResult] | None:
        found = None
        try:
            for key in keys:
                found = await off_loop(self._cache.find, key)
                if found is not None:
                    break
        except SQLAlchemyError:  # a cache that fails is a cache that has nothing
            log.exception("the prompt cache could not be read")
        self._looked_up(found is not None)
        return found

    async def _keep(self, keys: Sequence[str], results: Sequence[TaskResult]) -> None:
        if not keys:
            return
        try:
            await off_loop(self._cache.keep, keys, results)
        except SQLAlchemyError:
            log.exception("a prompt could not be kept")
