"""The bounded queue."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services


async def test_a_full_queue_refuses_at_once_and_changes_nothing(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], where: dict[str, Any]
) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, concurrency_given=1, max_queued_jobs=1, **where)
    async with open_client(settings) as client:
        first = (await client.post("/generate", json={"prompt": "one"})).json()
        await until(client, first["id"], lambda job: job["state"] == "running")
        second = (await client.post("/generate", json={"prompt": "two"})).json()
        assert second["progress"]["queue_position"] == 0
        before = left_behind(tmp_path)
        refused = await client.post("/generate", files={"image": ("a.png", picture())})
        assert refused.status_code == 429
        assert refused.json()["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) > 0
        assert left_behind(tmp_path) == before
        assert len((await client.get("/v1/jobs")).json()["data"]) == 2
        services.script.may_go_on.set()
        await until(client, second["id"], lambda job: job["state"] == "completed")


async def test_a_canceled_job_gives_its_place_to_the_next_at_once_and_the_log_stays_calm(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    services.script.describe_delay_s = 20
    async with open_client(gateway_settings(tmp_path, services, concurrency_given=1)) as client:
        slow = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        await until(client, slow["id"], lambda job: job["progress"]["stage"] == "describing")
        next_one = (await client.post("/generate", json={"prompt": "two"})).json()
        assert next_one["progress"]["queue_position"] == 0
        await client.post(slow["urls"]["cancel"])
        await until(client, next_one["id"], lambda job: job["state"] == "completed", seconds=15)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_job_canceled_in_the_queue_never_starts(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    async with open_client(gateway_settings(tmp_path, services, concurrency_given=1)) as client:
        first = (await client.post("/generate", json={"prompt": "one"})).json()
        waiting = (await client.post("/generate", json={"prompt": "two"})).json()
        canceled = (await client.post(waiting["urls"]["cancel"])).json()
        assert (canceled["state"], canceled["started_at"]) == ("canceled", None)
        services.script.may_go_on.set()
        await until(client, first["id"], lambda job: job["state"] == "completed")
        last = (await client.post("/generate", json={"prompt": "three"})).json()
        await until(client, last["id"], lambda job: job["state"] == "completed")
        assert services.script.begun == [first["id"], last["id"]]
