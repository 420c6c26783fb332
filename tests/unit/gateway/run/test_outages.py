"""What a job needs goes away while jobs wait and run, and comes back: all are completed.

Real gateways and sockets; the services are scripted, and the lines to them, and to the database, can be cut.
"""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync as off_loop
from dbos import DBOS, SetWorkflowID
from obstore.exceptions import GenericError

from gateway.jobs.queue import JobQueue
from gateway.storage.files import LocalFiles, StoredFile
from tests.support.relay import Relay, relay_to
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, open_gateway, until
from tests.unit.gateway.model_services import Script, Services

MakePicture = Callable[..., bytes]
JOBS = 8
AWAY_S = 0.6


async def submit(client: httpx.AsyncClient, picture: bytes, jobs: int = JOBS) -> list[str]:
    """Jobs, every other one of words alone."""
    ids: list[str] = []
    for number in range(jobs):
        files = {"image": ("a.png", picture)} if number % 2 == 0 else None
        body: dict[str, Any] = {"data": {"prompt": f"kite {number}"}} if files else {"json": {"prompt": "a kite"}}
        answer = await client.post("/generate", files=files, **body)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
    return ids


async def all_completed(client: httpx.AsyncClient, ids: list[str]) -> list[dict[str, Any]]:
    jobs = [await until(client, job_id, lambda job: job["state"] not in ("queued", "running")) for job_id in ids]
    assert [(job["state"], job["error"]) for job in jobs] == [("completed", None)] * len(jobs)
    return jobs


def cut(line: Relay, _: Script) -> None:
    line.cut()


def mend(line: Relay, _: Script) -> None:
    line.mend()


def load(_: Relay, script: Script) -> None:
    script.vl_ready = script.video_ready = False
    script.describe_status = script.put_status = 503


def loaded(_: Relay, script: Script) -> None:
    script.vl_ready = script.video_ready = True
    script.describe_status = script.put_status = 200


def break_unseen(_: Relay, script: Script) -> None:
    """Its `/readyz` says ready, its calls say 503."""
    script.describe_status = script.put_status = 503


def restart(line: Relay, script: Script) -> None:
    """It comes back and has forgotten every render."""
    script.statuses.clear()
    script.requests.clear()
    line.mend()


AWAY = {
    "cut": (cut, mend), "loading": (load, loaded), "broken unseen": (break_unseen, loaded), "restarted": (cut, restart),
}


@pytest.mark.parametrize(("service", "how", "where"), [
    ("vl_service", "cut", "sqlite"), ("vl_service", "broken unseen", "sqlite"),
    ("video_service", "loading", "sqlite"), ("video_service", "broken unseen", "sqlite"),
    ("video_service", "restarted", "sqlite"), ("video_service", "restarted", "postgres"),
], indirect=["where"])
async def test_a_service_that_is_away_delays_jobs_and_fails_none(
    how: str, where: dict[str, Any], service: str, tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    go, come = AWAY[how]
    services.script.step_s = 0.02
    with ExitStack() as stack:
        line = stack.enter_context(relay_to(services.vl_url if service == "vl_service" else services.video_url))
        url = {"vl_url_given" if service == "vl_service" else "video_url_given": line.url}
        settings = gateway_settings(tmp_path, services, **where, **url)
        async with open_client(settings) as client:
            await until_ready(client)
            ids = await submit(client, picture())
            await until(client, ids[0], lambda job: job["state"] != "queued")
            go(line, services.script)
            await asyncio.sleep(AWAY_S / 2)
            calls = len(services.script.describe_calls) + len(services.script.puts)
            await asyncio.sleep(AWAY_S / 2)
            more = len(services.script.describe_calls) + len(services.script.puts) - calls
            assert more < 60, "waiting asks now and then, and does not spin"
            states = [(await client.get(f"/v1/jobs/{job_id}")).json() for job_id in ids]
            assert {job["state"] for job in states} <= {"queued", "running", "completed"}
            come(line, services.script)
            await all_completed(client, ids)
            assert sorted({*services.script.completed}) == sorted(ids)
    assert not any(name.endswith(".part") for name in left_behind(tmp_path))


async def test_a_database_that_is_away_delays_jobs_and_fails_none(
    tmp_path: Path, services: Services, picture: MakePicture, postgres_url: str
) -> None:
    services.script.step_s = 0.02
    with relay_to(postgres_url) as line:
        async with open_client(gateway_settings(tmp_path, services, database_url=line.url)) as client:
            ids = await submit(client, picture())
            await until(client, ids[0], lambda job: job["state"] != "queued")
            line.cut()
            await asyncio.sleep(AWAY_S)
            line.mend()
            await all_completed(client, ids)
    assert sorted(services.script.completed) == sorted(ids), "what was rendered before is not rendered again"


async def test_the_job_and_readyz_say_what_is_waited_for_and_stop_saying_so(
    tmp_path: Path, services: Services
) -> None:
    with relay_to(services.video_url) as line:
        async with open_client(gateway_settings(tmp_path, services, video_url_given=line.url)) as client:
            await until_ready(client)
            await client.post("/generate", json={"prompt": "known models"})
            line.cut()
            job = (await client.post("/generate", json={"prompt": "a kite"})).json()
            job = await until(client, job["id"], lambda job: job["progress"]["waiting_for"] is not None)
            assert job["progress"]["waiting_for"] == "video_service"
            assert "cannot be reached" in job["progress"]["waiting_detail"]
            await asyncio.sleep(1.1)  # a look at everything is a second old at most
            assert "video_service: cannot be reached" in (await client.get("/readyz")).json()["reasons"][0]
            line.mend()
            [done] = await all_completed(client, [job["id"]])
            assert done["progress"]["waiting_for"] is None


STORE_ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.EIO, "Input/output error"), GenericError("Generic S3 error: connection refused"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), TimeoutError("timed out"),
]


async def test_a_store_that_takes_nothing_is_waited_for_and_the_render_is_not_made_again(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = LocalFiles.receive
    now: list[Exception] = []  # what every write meets

    async def refuse(
        self: LocalFiles, job_id: str, name: str, chunks: AsyncIterator[bytes], sha256: str | None = None
    ) -> StoredFile:
        if now:
            raise now[0]
        return await receive(self, job_id, name, chunks, sha256)

    monkeypatch.setattr(LocalFiles, "receive", refuse)
    async with open_client(gateway_settings(tmp_path, services)) as client:
        for error in STORE_ERRORS:
            now[:] = [error]
            job = (await client.post("/generate", json={"prompt": "a kite"})).json()
            shown = await until(client, job["id"], lambda job: job["progress"]["waiting_for"] is not None)
            assert shown["progress"]["waiting_for"] == "storage"
            assert str(error).split("] ")[-1] in shown["progress"]["waiting_detail"]
            now.clear()
            await all_completed(client, [job["id"]])
            assert services.script.begun.count(job["id"]) == 1


async def test_nobody_waits_behind_a_job_that_waits(tmp_path: Path, services: Services, picture: MakePicture) -> None:
    """One place, and at the head of the line a job that the service answers 503, whatever its `/readyz` says."""
    services.script.describe_status = 503
    async with open_client(gateway_settings(tmp_path, services, concurrency_given=1)) as client:
        first = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        await until(client, first["id"], lambda job: job["progress"]["waiting_for"] == "vl_service")
        [behind] = await all_completed(client, [(await client.post("/generate", json={"prompt": "x"})).json()["id"]])
        assert behind["state"] == "completed"
        services.script.describe_status = 200
        await all_completed(client, [first["id"]])


async def test_a_released_job_survives_the_gateway_and_leaves_no_half_finished_work(
    tmp_path: Path, services: Services, picture: MakePicture, where: dict[str, Any]
) -> None:
    settings = gateway_settings(tmp_path, services, **where)
    services.script.describe_status = 503
    async with open_client(settings) as client:
        job = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        await until(client, job["id"], lambda _: len(services.script.describe_calls) >= 3)
    services.script.describe_status = 200
    async with open_gateway(settings) as (client, opened):
        await all_completed(client, [job["id"]])
        async with asyncio.timeout(20):  # no workflow stays unfinished; one that was cut off is taken up, and ends
            while await off_loop(opened.engine.stranded, set()):  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0.05)
        assert (await client.delete(f"/v1/jobs/{job['id']}")).status_code == 204
    assert services.script.begun == [job["id"]]


async def test_a_job_that_a_build_before_claims_was_at_is_carried_on(tmp_path: Path, services: Services) -> None:
    """Such a build wrote down the job's id alone."""
    async with open_gateway(gateway_settings(tmp_path, services, engine_poll_s=5)) as (client, opened):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(JobQueue, "take", lambda *_: [])
            job = (await client.post("/generate", json={"prompt": "a kite"})).json()
            workflow: Any = opened.engine._workflow
            with SetWorkflowID(job["id"]):
                await DBOS.start_workflow_async(workflow, job["id"])
            await all_completed(client, [job["id"]])


async def until_ready(client: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + 30
    while (await client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
