"""Who hangs up is waited for no longer; a full disk is said at the door."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, open_socket_client, until
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.test_metrics import series


@pytest.mark.parametrize("headers", [{"Prefer": "wait=60"}, {"Accept": "video/mp4"}])
async def test_a_wait_ends_when_its_client_hangs_up_and_the_job_goes_on(
    tmp_path: Path, services: Services, headers: dict[str, str]
) -> None:
    services.script.may_go_on.clear()
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        waiting = asyncio.create_task(client.post("/generate", json={"prompt": "a kite"}, headers=headers))
        async with asyncio.timeout(60):
            while not (jobs := (await client.get("/v1/jobs")).json()["data"]):  # noqa: ASYNC110 - another's answer
                await asyncio.sleep(0.02)
            waiting.cancel()
            while not any("status=499" in name for name in await series(client)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        job = jobs[0]
        await until(client, job["id"], lambda job: job["state"] == "running")
        services.script.may_go_on.set()
        await until(client, job["id"], lambda job: job["state"] == "completed")


async def test_a_full_disk_is_refused_at_the_door_and_nothing_is_left(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, min_free_bytes=2**60)) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert "MiB" in answer.json()["detail"]
        assert left_behind(tmp_path) == []
        assert (await client.get("/v1/jobs")).json()["data"] == []
