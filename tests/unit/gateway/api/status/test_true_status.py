"""Laws of what is down: callers are told so, with when to come back, and what frees a full disk goes on working."""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import gateway.database.database
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services

Make = Callable[..., bytes]
_DISK_BYTES = 48 * 2**20


class Disk:
    """A small disk of its own, that can be filled, and broken so that it can only be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        image = path.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        _as_root("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image))
        _as_root("mount", "-o", "loop", str(image), str(path))

    def break_it(self) -> None:
        _as_root("mount", "-o", "remount,abort", str(self.path))  # as after an error of the disk

    def fill(self) -> None:
        with (self.path / "somebody else's").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert shutil.disk_usage(self.path).free < 4096


def _as_root(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be made here: {getattr(error, 'stderr', error)}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def told(answer: httpx.Response) -> tuple[int, str, bool]:
    return answer.status_code, answer.json().get("code", ""), "retry-after" in answer.headers


BUSY = (503, "database_unavailable", True)
NO_FILES = (503, "storage_unavailable", True)
FULL = (507, "disk_full", True)


async def test_a_disk_that_becomes_read_only_makes_the_gateway_unready_and_nothing_a_500(
    disk: Disk, services: Services, picture: Make
) -> None:
    async with open_client(gateway_settings(disk.path / "data", services)) as client:
        job_id = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await until(client, job_id, lambda job: job["state"] == "completed")
        assert (await client.get("/readyz")).status_code == 200
        disk.break_it()
        await asyncio.sleep(1.1)  # a look is shared for a second
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert "cannot be used" in str(ready.json()["reasons"])
        assert "takes no writes" in str(ready.json()["reasons"])
        assert told(await client.post("/generate", json={"prompt": "a kite"})) == BUSY
        assert told(await client.delete(f"/v1/jobs/{job_id}")) == BUSY
        assert told(await client.post("/generate", files={"image": ("a.png", picture())})) == NO_FILES
        assert told(await client.post("/v1/files", files={"file": ("a.png", picture())})) == NO_FILES
        assert (await client.get(f"/v1/jobs/{job_id}/content")).status_code == 200


async def test_on_a_full_disk_jobs_can_be_canceled_and_removed_and_then_there_is_room_again(
    disk: Disk, services: Services
) -> None:
    settings = gateway_settings(disk.path / "data", services, reserve_bytes=4 * 2**20, min_free_bytes=2**20)
    services.script.may_go_on.clear()
    try:
        async with open_client(settings) as client:
            jobs = [(await client.post("/generate", json={"prompt": "a kite"})).json()["id"] for _ in range(4)]
            await until(client, jobs[0], lambda job: job["state"] == "running")
            disk.fill()
            assert (await client.get("/readyz")).status_code == 503
            await asyncio.sleep(0.6)  # how long the room at the door is taken for known
            assert told(await client.post("/generate", json={"prompt": "a kite"})) == FULL
            for job_id in jobs:
                canceled = await client.post(f"/v1/jobs/{job_id}/cancel")
                assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
            for job_id in jobs:
                assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
            assert (await client.get("/v1/jobs")).json()["data"] == []
            (disk.path / "somebody else's").unlink()
            services.script.may_go_on.set()
            await asyncio.sleep(0.6)
            again = await client.post("/generate", json={"prompt": "a kite"})
            await until(client, again.json()["id"], lambda job: job["state"] == "completed")
            assert (settings.state_dir / "reserve").stat().st_size == settings.reserve_bytes, "held again"
    finally:
        services.script.may_go_on.set()


async def test_a_locked_database_is_a_503_and_changes_nothing(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.database.database, "_LOCKED_S", 0.3)
    settings = gateway_settings(tmp_path, services)
    async with open_client(settings) as client:
        job_id = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await until(client, job_id, lambda job: job["state"] == "completed")
        with closing(sqlite3.connect(settings.jobs_database_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = await asyncio.gather(
                *(client.post("/generate", json={"prompt": "a kite"}) for _ in range(20)),
                client.delete(f"/v1/jobs/{job_id}"),
            )
            assert {told(answer) for answer in answers} == {BUSY}
            assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 200, "others may still read"
            other.execute("ROLLBACK")
        listed = (await client.get("/v1/jobs")).json()["data"]
        assert [job["id"] for job in listed] == [job_id], "who was told no has left no job"
        assert (await client.post("/generate", json={"prompt": "a kite"})).status_code == 202


async def test_postgres_that_is_away_is_a_503_until_it_is_back(
    tmp_path: Path, services: Services, postgres_url: str
) -> None:
    async with open_client(gateway_settings(tmp_path, services, database_url=postgres_url)) as client:
        job_id = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await until(client, job_id, lambda job: job["state"] == "completed")
        away(postgres_url, True)
        calls: list[Any] = [
            client.get("/v1/jobs"), client.get(f"/v1/jobs/{job_id}"), client.post("/generate", json={"prompt": "kite"}),
            client.get("/v1/files"), client.get(f"/v1/jobs/{job_id}/content"), client.delete(f"/v1/jobs/{job_id}"),
        ]
        assert {told(answer) for answer in await asyncio.gather(*calls)} == {BUSY}
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "database" in str(ready.json()["reasons"])
        away(postgres_url, False)
        assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 200


def away(url: str, yes: bool) -> None:
    """Let nobody connect to the database, and end who is."""
    server, name = url.rsplit("/", 1)
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'false' if yes else 'true'}".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


async def test_a_cursor_beyond_every_number_is_refused_alike_everywhere(
    tmp_path: Path, services: Services, where: dict[str, Any]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, **where)) as client:
        for cursor in (2**31, 10**17):
            assert told(await client.get(f"/v1/jobs?cursor={cursor}")) == (422, "invalid_request", False)
        assert (await client.get(f"/v1/jobs?cursor={2**31 - 1}")).status_code == 200


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_canceling_three_times_at_once_is_canceling(
    tmp_path: Path, services: Services, where: dict[str, Any], state: str
) -> None:
    services.script.may_go_on.clear()
    try:
        async with open_client(gateway_settings(tmp_path, services, concurrency_given=1, **where)) as client:
            jobs = [(await client.post("/generate", json={"prompt": "a kite"})).json()["id"] for _ in range(2)]
            await until(client, jobs[0], lambda job: job["state"] == "running")
            job_id = jobs[0] if state == "running" else jobs[1]
            answers = await asyncio.gather(*(client.post(f"/v1/jobs/{job_id}/cancel") for _ in range(3)))
            assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "canceled")] * 3
    finally:
        services.script.may_go_on.set()
