"""A flood of `POST /v1/describe` makes nobody's job fail, and none wait long."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.unit.gateway.conftest import gateway_settings, open_socket_client, until
from tests.unit.gateway.model_services import Services


@pytest.mark.parametrize(("seats", "num_jobs"), [pytest.param(4, 10, marks=pytest.mark.full), (1, 3)])
async def test_jobs_go_before_callers_who_ask_for_descriptions(
    seats: int, num_jobs: int, tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.describe_seats, services.script.describe_delay_s = seats, 0.05
    statuses: list[int] = []

    async def ask(client: httpx.AsyncClient, image: bytes) -> None:
        while True:
            answer = await client.post("/v1/describe", files={"image": ("a.png", image)})
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert (answer.json()["code"], int(answer.headers["Retry-After"]) > 0) == ("vl_service_busy", True)
                await asyncio.sleep(1.0)

    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        await client.post("/generate", json={"prompt": "the models are known"})
        image = picture(64, 64)
        flood = [asyncio.create_task(ask(client, image)) for _ in range(24)]
        await asyncio.sleep(0.3)
        posted = [
            await client.post("/generate", files={"image": ("a.png", picture(64, 64 + n))}) for n in range(num_jobs)
        ]
        jobs = [
            await until(client, answer.json()["id"], lambda job: job["state"] not in ("queued", "running"))
            for answer in posted
        ]
        for task in flood:
            task.cancel()
        await asyncio.wait(flood)
        assert all(task.cancelled() for task in flood), "each asked to the end"
    assert [(job["state"], job["error"]) for job in jobs] == [("completed", None)] * num_jobs
    assert set(statuses) == {200, 503}, "some are answered, and the others told when to come back"
    assert max(job["timings"]["describing"] for job in jobs) < 5, "two callers at most are before a job"
