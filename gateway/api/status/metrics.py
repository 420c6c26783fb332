"""`/metrics` for Prometheus: open where no keys are needed, else for any key."""

import shutil
import time

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.api.access import OpenGateway, TheCaller
from gateway.jobs.queue import read_backlog
from gateway.runtime import Gateway

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(gateway: OpenGateway, _: TheCaller) -> Response:
    """Every series of this process."""
    await _measure(gateway)
    return Response(await off_loop(generate_latest, gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _measure(gateway: Gateway) -> None:
    shown = gateway.metrics
    shown.measure_backlog(await off_loop(read_backlog, gateway.database), time.time())
    renders = await gateway.video.load()
    shown.forget_upstreams()  # their addresses come and go
    shown.measure_upstreams("vl_service", gateway.vl.pool.members)
    shown.measure_upstreams("video_service", gateway.video.pool.members, renders)
    shown.measure_disk((await off_loop(shutil.disk_usage, gateway.settings.data_dir)).free)
