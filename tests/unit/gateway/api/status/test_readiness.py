"""`/readyz` says ready exactly where a job would be carried to its end, and asking it costs next to nothing."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

import gateway.api.status.health
from gateway.api.status.health import Readiness
from gateway.database.database import Database
from gateway.services.pool import Probe
from gateway.services.vl import VLClient
from gateway.storage.files import LocalFiles
from tests.unit.gateway.conftest import gateway_settings, open_client, open_gateway, until
from tests.unit.gateway.model_services import Services


async def test_a_wrong_internal_token_is_said_by_readyz_and_delays_jobs(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, internal_token="ours")) as client:
        await client.post("/generate", json={"prompt": "the models are known"})
        services.script.token = "theirs"
        await asyncio.sleep(0.3)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["stuck"]) == (503, True)
        assert [reason.split(":")[0] for reason in answer.json()["reasons"]] == ["vl_service", "video_service"]
        assert "set STILLMOTION_INTERNAL_TOKEN to the same value" in answer.json()["reasons"][0]
        asked = {"tasks": [{"kind": "prompt", "user_prompt": "a kite"}]}
        answer = await client.post("/v1/describe", json=asked)
        assert (answer.status_code, answer.json()["code"]) == (502, "vl_service_misconfigured")
        assert "STILLMOTION_INTERNAL_TOKEN" in answer.json()["detail"]
        job = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        await until(client, job["id"], lambda job: job["progress"]["waiting_for"] == "vl_service")
        services.script.token = "ours"
        await until(client, job["id"], lambda job: job["state"] == "completed")


async def test_those_who_ask_share_one_look_a_second(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gateway(gateway_settings(tmp_path, services, probe_s=60)) as (_, opened):
        looks: list[float] = []
        check = Database.check_writable

        def counted(self: Database) -> None:
            looks.append(time.monotonic())
            check(self)

        monkeypatch.setattr(Database, "check_writable", counted)
        readiness = Readiness(opened)
        answers = await asyncio.gather(*(readiness.look() for _ in range(500)))
        assert {answer.ready for answer in answers} == {True}
        assert len(looks) == 1
        await asyncio.sleep(1.05)
        await readiness.look()
        assert len(looks) == 2


async def test_a_part_that_hangs_is_named_within_the_bound_and_asked_once(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    async def hang(_: VLClient) -> Probe:
        asked.append(None)
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async with open_gateway(gateway_settings(tmp_path, services, probe_s=60)) as (_, opened):
        await asyncio.sleep(0.2)  # the gateway itself looks once at its start
        monkeypatch.setattr(gateway.api.status.health, "_WITHIN_S", 0.5)
        monkeypatch.setattr(gateway.api.status.health, "_FRESH_S", 0.0)
        monkeypatch.setattr(VLClient, "probe", hang)
        readiness = Readiness(opened)
        for _ in range(3):
            began = time.monotonic()
            found = await readiness.look()
            assert time.monotonic() - began < 2
            assert (found.ready, found.reasons) == (False, ["vl_service: did not answer within 0.5 s"])
        assert len(asked) == 1


async def test_a_folder_that_takes_no_files_is_not_ready(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LocalFiles) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(LocalFiles, "check_disk", refuse)
    async with open_client(gateway_settings(tmp_path, services)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "Read-only file system" in answer.json()["reasons"][0]


async def test_asked_for_itself_alone_a_gateway_is_ready_while_a_service_is_away(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a balancer that asks so, jobs are taken and shown while they wait for the service."""
    async with open_client(gateway_settings(tmp_path, services, video_url_given="http://127.0.0.1:9")) as client:
        assert (await client.get("/readyz")).status_code == 503
        answer = await client.get("/readyz", params={"own": "true"})
        assert (answer.status_code, answer.json()["reasons"]) == (200, [])

        def refuse(_: Database) -> None:
            raise SQLAlchemyError("read-only")

        monkeypatch.setattr(Database, "check_writable", refuse)
        await asyncio.sleep(1.05)
        answer = await client.get("/readyz", params={"own": "true"})
        assert (answer.status_code, len(answer.json()["reasons"])) == (503, 1)
