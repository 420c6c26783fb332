"""Which models the two services run, remembered for a while so that the door answers without asking, and whether they
are there: no job is claimed that would only wait.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from contracts.models import AbsentModel, VideoModelInfo, VLModelInfo
from gateway.jobs.job import Absence, JobRecord
from gateway.jobs.queue import Claimable
from gateway.services.errors import ServiceError
from gateway.services.pool import Client, Pool
from gateway.services.video import Renderers, VideoClient
from gateway.services.vl import Describers, VLClient

FRESH_S = 30.0
FAILURE_PAUSE_S = 2.0  # how long a service that just failed is not asked again
Model = TypeVar("Model", VideoModelInfo | AbsentModel, VLModelInfo)
_BEST_FIRST = ("loaded", "loadable", "absent")

log = logging.getLogger(__name__)


class _Remembered(Generic[Model]):
    """One service's list: asked when older than `FRESH_S`, by one caller at a time; kept when asking fails."""

    def __init__(self, ask: Callable[[], Awaitable[list[Model]]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._models: list[Model] = []
        self._asked_at = self._asked_again_at = 0.0
        self._error: ServiceError | None = None

    async def get(self, fresh_s: float = FRESH_S) -> list[Model]:
        """The models as they were `fresh_s` ago at most; raises `ServiceError` where they were never known."""
        if self._is_old(fresh_s):
            async with self._lock:
                if self._is_old(fresh_s):  # not refreshed while this task waited for the lock
                    await self._refresh()
        if not self._models and self._error is not None:
            raise self._error
        return self._models

    def _is_old(self, fresh_s: float) -> bool:
        now = time.monotonic()
        return now >= self._asked_again_at or now - self._asked_at >= max(fresh_s, FAILURE_PAUSE_S)

    async def _refresh(self) -> None:
        self._asked_at = time.monotonic()
        try:
            self._models = await self._ask()
            self._error = None
            self._asked_again_at = time.monotonic() + (FRESH_S if self._models else FAILURE_PAUSE_S)
        except ServiceError as error:
            self._error = error
            self._asked_again_at = time.monotonic() + FAILURE_PAUSE_S


class Catalog:
    """The models of both services, and what is known now of whether anybody runs them."""

    def __init__(self, vl: Describers, video: Renderers) -> None:
        self._vl_pool, self._video_pool, self._renderers = vl.pool, video.pool, video
        self._vl = _Remembered[VLModelInfo](lambda: every_model(vl.pool, VLClient.models))
        self._video = _Remembered[VideoModelInfo | AbsentModel](lambda: every_model(video.pool, VideoClient.models))

    async def video_models(self, fresh_s: float = FRESH_S) -> list[VideoModelInfo]:
        """The video models, the default first.

        Raises:
            ServiceError: the video service was never reached, or runs no model.
        """
        models = [model for model in await self._video.get(fresh_s) if isinstance(model, VideoModelInfo)]
        if not models:
            raise ServiceError("video_service", "unavailable", "has no model loaded")
        return models

    async def absent_models(self) -> list[AbsentModel]:
        """The video models that no service can render with; raises `ServiceError` where they were never known."""
        return [model for model in await self._video.get() if isinstance(model, AbsentModel)]

    async def vl_models(self, fresh_s: float = FRESH_S) -> list[VLModelInfo]:
        """The vision-language models; raises `ServiceError` where they were never known."""
        return await self._vl.get(fresh_s)

    async def known_vl_models(self) -> list[VLModelInfo]:
        """The vision-language models as far as they are known: a job may be accepted without them."""
        try:
            return await self._vl.get()
        except ServiceError:
            return []

    def claimable(self) -> Claimable:
        """Which jobs have all that they need."""
        return Claimable(
            renders=self._video_pool.absence() is None, describes=self._vl_pool.absence() is None,
            absent_models=self._video_pool.absent_models(),
        )

    def absent(self, job: JobRecord) -> Absence | None:
        """What a waiting job needs and no address offers."""
        found = self._vl_pool.absence() if job.needs_vl else None
        if found is not None:
            return Absence(what="vl_service", detail=f"vl_service: {found[0]}", away_s=found[1])
        found = self._video_pool.absence(job.parameters.model)
        if found is not None:
            return Absence(what="video_service", detail=f"video_service: {found[0]}", away_s=found[1])
        return None

    async def keep_looking(self, every_s: float) -> None:
        """For ever: know where the services are and how, and have them drop what nobody waits for any more."""
        while True:
            try:
                await asyncio.gather(self._vl_pool.look(), self._video_pool.look())
                await asyncio.gather(self._vl_pool.probe(), self._video_pool.probe())
                await self._renderers.clear_left()
            except Exception:
                log.exception("looking after the services failed; it is tried again in %g s", every_s)
            await asyncio.sleep(every_s)


async def every_model(pool: Pool[Client], ask: Callable[[Client], Awaitable[list[Model]]]) -> list[Model]:
    """The models of all addresses that answer, each once, as the address says that has it readiest; notes with each
    address which ones it runs.

    Raises:
        ServiceError: no address answers.
    """
    members = pool.members  # others may come meanwhile
    answers = await asyncio.gather(*(ask(member.client) for member in members), return_exceptions=True)
    found: dict[str, Model] = {}
    problem: ServiceError | None = None
    for member, answer in zip(members, answers, strict=True):
        if isinstance(answer, ServiceError):
            problem = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            member.models = frozenset(model.id for model in answer if _state(model) != "absent")
            member.loaded = frozenset(model.id for model in answer if _state(model) == "loaded")
            for model in answer:
                known = found.setdefault(model.id, model)
                if _BEST_FIRST.index(_state(model)) < _BEST_FIRST.index(_state(known)):
                    found[model.id] = model  # at the place of the other
    if not found and problem is not None:
        raise problem
    return list(found.values())


def _state(model: VideoModelInfo | AbsentModel | VLModelInfo) -> str:
    return "loaded" if isinstance(model, VLModelInfo) else model.state
