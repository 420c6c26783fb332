"""Which models the two services run, remembered for a while so that the door answers without asking."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from contracts.models import VideoModelInfo, VLModelInfo
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
        self._asked_again_at = 0.0
        self._error: ServiceError | None = None

    async def get(self) -> list[Model]:
        """The models; raises `ServiceError` where they were never known."""
        if time.monotonic() >= self._asked_again_at:
            async with self._lock:
                if time.monotonic() >= self._asked_again_at:  # not refreshed while this task waited for the lock
                    await self._refresh()
        if not self._models and self._error is not None:
            raise self._error
        return self._models

    async def _refresh(self) -> None:
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
        self._video = _Remembered[VideoModelInfo](video.models)

    async def video_models(self) -> list[VideoModelInfo]:
        """The video models, the default first.

        Raises:
            ServiceError: the video service was never reached, or runs no model.
        """
        models = await self._video.get()
        if not models:
            raise ServiceError("video_service", "unavailable", "has no model loaded")
        return models

    async def vl_models(self) -> list[VLModelInfo]:
        """The vision-language models; raises `ServiceError` where they were never known."""
        return await self._vl.get()

    async def known_vl_models(self) -> list[VLModelInfo]:
        """The vision-language models as far as they are known: a job may be accepted without them."""
        try:
            return await self._vl.get()
        except ServiceError:
            return []
