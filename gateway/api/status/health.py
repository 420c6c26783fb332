"""`/livez` and `/readyz`: whether a render asked for now would succeed, and if not, why."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from contracts.models import Health
from gateway.api.access import OpenGateway
from gateway.runtime import Gateway

_WITHIN_S = 3.0
_FRESH_S = 1.0


router = APIRouter(tags=["health"])


@dataclass
class Readiness:
    """One look at a time, shared by all who ask: at most one a second, each part of it within three.

    A part that hangs is not asked again before it has answered: however often somebody looks, it costs one thread.
    """

    gateway: Gateway
    _parts: dict[str, "asyncio.Task[Health]"] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: Health | None = None
    _own: Health | None = None
    _looked_at: float = 0.0

    async def look(self, *, own: bool = False) -> Health:
        """Ready when both services are, the disk has room, the store answers and the database takes writes; `own`:
        but for the services, without which jobs are taken and wait.
        """
        async with self._looking:
            if self._last is None or self._own is None or time.monotonic() - self._looked_at >= _FRESH_S:
                found = await self._look()
                self._last = self._told(found)
                self._own = self._told({name: health for name, health in found.items() if not _is_service(name)})
                self._looked_at = time.monotonic()
            return self._own if own else self._last

    async def _look(self) -> dict[str, Health]:
        gateway = self.gateway
        checks: dict[str, Callable[[], Awaitable[Health]]] = {
            "vl_service": gateway.vl.pool.health, "video_service": gateway.video.pool.health,
            "disk": lambda: _disk(gateway), "store": lambda: _store(gateway), "database": lambda: _database(gateway),
        }
        for name, check in checks.items():
            if name not in self._parts or self._parts[name].done():
                self._parts[name] = asyncio.ensure_future(check())
        await asyncio.wait(self._parts.values(), timeout=_WITHIN_S)
        return {name: _outcome(self._parts[name]) for name in checks}

    def _told(self, found: dict[str, Health]) -> Health:
        details = {f"{name}.{key}": value for name, health in found.items() for key, value in health.details.items()}
        if self.gateway.care.sweeper.refusal is not None:  # every job is served all the same
            details["gateway.files"] = self.gateway.care.sweeper.refusal
        unready = {name: health for name, health in found.items() if not health.ready}
        return Health(
            ready=not unready, stuck=any(health.stuck for health in unready.values()),
            reasons=[
                f"{_speaker(name)}: {reason}" for name, health in unready.items()
                for reason in health.reasons or ["is not ready"]
            ],
            details=details,
        )


@router.get("/livez", summary="The process answers")
async def livez() -> Health:
    """Always ready: restarting a process that answers this helps nobody."""
    return Health(ready=True)


@router.get(
    "/readyz", response_model=Health, summary="A render would succeed",
    responses={503: {"model": Health, "description": "It would not; `reasons` says why."}},
)
async def readyz(
    request: Request, gateway: OpenGateway,
    own: Annotated[bool, Query(description="Of this process alone: jobs are taken, and wait where a service is away.")]
    = False,
) -> Response:
    """200 when both services are ready and take our calls, the disk has room and the database takes writes."""
    looks: Readiness | None = getattr(request.app.state, "readiness", None)
    if looks is None or looks.gateway is not gateway:
        looks = request.app.state.readiness = Readiness(gateway)
    health = await looks.look(own=own)
    return JSONResponse(health.model_dump(mode="json"), 200 if health.ready else 503)


def _speaker(part: str) -> str:
    return part if _is_service(part) else "gateway"


def _is_service(part: str) -> bool:
    return part.endswith("_service")


def _outcome(task: "asyncio.Task[Health]") -> Health:
    if not task.done():
        return Health(ready=False, reasons=[f"did not answer within {_WITHIN_S:g} s"])
    return task.result()


async def _disk(gateway: Gateway) -> Health:
    try:
        free = await off_loop(gateway.files.free_bytes)
        await off_loop(gateway.files.check_disk)
    except OSError as error:
        return Health(ready=False, stuck=True, reasons=[f"the data folder cannot be used ({error})"])
    needed = gateway.settings.min_free_bytes
    if free >= needed:
        return Health(ready=True)
    return Health(ready=False, stuck=True, reasons=[
        f"{free // 2**20} MiB free on disk, {needed // 2**20} MiB needed; free some, or lower GATEWAY_MIN_FREE_BYTES"
    ])


async def _store(gateway: Gateway) -> Health:
    try:
        await gateway.files.check()
    except OSError as error:
        return Health(ready=False, reasons=[f"the bucket cannot be used ({error})"])
    return Health(ready=True)


async def _database(gateway: Gateway) -> Health:
    try:
        await off_loop(gateway.database.check_writable)
    except SQLAlchemyError as error:
        return Health(ready=False, reasons=[f"the database takes no writes ({error})"])
    return Health(ready=True)
