"""Whether a render asked for now would succeed, and if not, why."""

import asyncio

from sqlalchemy.exc import SQLAlchemyError

from contracts.models import Health
from gateway.runtime import Gateway
from gateway.threads import off_loop

_BUCKET_ANSWERS_WITHIN_S = 5.0


async def readiness(gateway: Gateway) -> Health:
    """Ready when both services are, the disk has room, the bucket answers and the database takes writes."""
    vl, video, disk, bucket, database = await asyncio.gather(
        gateway.vl.health(), gateway.video.health(), _disk(gateway), _bucket(gateway), _database(gateway)
    )
    reasons = [
        f"{name}: {reason}"
        for name, health in (("vl_service", vl), ("video_service", video))
        if not health.ready
        for reason in health.reasons or ["is not ready"]
    ]
    reasons += [reason for reason in (disk, bucket, database) if reason]
    stuck = disk is not None or any(health.stuck for health in (vl, video) if not health.ready)
    details = {f"vl_service.{key}": value for key, value in vl.details.items()}
    details |= {f"video_service.{key}": value for key, value in video.details.items()}
    if gateway.care.sweeper.refusal is not None:  # every job is served all the same
        details["gateway.files"] = gateway.care.sweeper.refusal
    return Health(ready=not reasons, stuck=stuck, reasons=reasons, details=details)


async def _disk(gateway: Gateway) -> str | None:
    try:
        free = await off_loop(gateway.files.free_bytes)
        needed = gateway.settings.min_free_bytes
        if free >= needed:
            await off_loop(gateway.files.check_disk)
            return None
    except OSError as error:
        return f"gateway: the data folder cannot be used ({error})"
    return (
        f"gateway: {free // 2**20} MiB free on disk, {needed // 2**20} MiB needed; free some, or "
        "lower GATEWAY_MIN_FREE_BYTES"
    )


async def _bucket(gateway: Gateway) -> str | None:
    try:
        async with asyncio.timeout(_BUCKET_ANSWERS_WITHIN_S):
            await gateway.files.check()
    except TimeoutError:
        return f"gateway: the bucket did not answer within {_BUCKET_ANSWERS_WITHIN_S:g} s"
    except OSError as error:
        return f"gateway: the bucket cannot be used ({error})"
    return None


async def _database(gateway: Gateway) -> str | None:
    try:
        await gateway.ledger.check_writable()
    except SQLAlchemyError as error:
        return f"gateway: the database takes no writes ({error})"
    return None
