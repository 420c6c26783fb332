"""Which models the two services run, remembered for a while so that the door answers without asking."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from contracts.models import AbsentModel, VideoModelInfo, VLModelInfo
from gateway.services.errors import ServiceError
from gateway.services.video import Renderers
from gateway.services.vl import Describers

FRESH_S = 30.0
FAILURE_PAUSE_S = 2.0  # how long a service that just failed is not asked again
Model = TypeVar("Model")


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
    """The models of both services."""

    def __init__(self, vl: Describers, video: Renderers) -> None:
        self._vl = _Remembered[VLModelInfo](vl.models)
        self._video = _Remembered[VideoModelInfo | AbsentModel](video.models)

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

    async def vl_models(self) -> list[VLModelInfo]:
        """The vision-language models; raises `ServiceError` where they were never known."""
        return await self._vl.get()

    async def known_vl_models(self) -> list[VLModelInfo]:
        """The vision-language models as far as they are known: a job may be accepted without them."""
        try:
            return await self._vl.get()
        except ServiceError:
            return []
