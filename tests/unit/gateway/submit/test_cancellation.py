"""A request that is canceled while its row is written (a shutdown, a hang-up): what the row names is there."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.database.database import Database
from gateway.jobs.store import JobStore
from gateway.submit.uploaded import UploadStore
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services


class Slowly:
    """Makes a method stand still in its thread until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        method = getattr(kind, name)

        def wait(*args: Any, **kwargs: Any) -> Any:
            self.entered.set()
            self.may_go_on.wait(10)
            return method(*args, **kwargs)

        monkeypatch.setattr(kind, name, wait)

    async def cancel_meanwhile(self, request: "asyncio.Task[httpx.Response]") -> None:
        await asyncio.to_thread(self.entered.wait, 10)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        self.may_go_on.set()


async def first(client: httpx.AsyncClient, path: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first of a list, once it is the wanted one."""
    for _ in range(500):
        listed = (await client.get(path)).json()["data"]
        if listed and wanted(listed[0]):
            return listed[0]
        await asyncio.sleep(0.02)
    pytest.fail(f"never at {path}")


async def test_a_job_that_was_stored_has_its_picture_though_its_request_was_canceled(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        await client.post("/generate", json={"prompt": "the models are known"})
        commit = Slowly(monkeypatch, JobStore, "add")
        post = client.post("/generate", files={"image": ("a.png", picture())}, data={"prompt": "canceled"})
        await commit.cancel_meanwhile(asyncio.create_task(post))
        job = await first(client, "/v1/jobs", lambda job: job["original_prompt"] == "canceled")
        done = await until(client, job["id"], lambda job: job["state"] not in ("queued", "running"))
        assert (done["state"], done["error"]) == ("completed", None)
        assert services.script.describe_calls[-1].image is not None


async def test_an_uploaded_file_that_was_stored_has_its_picture_though_its_request_was_canceled(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        commit = Slowly(monkeypatch, UploadStore, "add")
        post = client.post("/v1/files", files={"file": ("a.png", picture())})
        await commit.cancel_meanwhile(asyncio.create_task(post))
        file = await first(client, "/v1/files", lambda _: True)
        assert (await client.get(f"/v1/files/{file['id']}/content")).status_code == 200


async def test_what_is_refused_in_the_commit_leaves_no_picture(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, max_queued_jobs=1, concurrency_given=1, max_files=1)
    async with open_client(settings) as client:
        running = (await client.post("/generate", json={"prompt": "runs"})).json()
        await until(client, running["id"], lambda job: job["state"] == "running")
        await client.post("/generate", json={"prompt": "waits"})
        assert (await client.post("/generate", files={"image": ("a.png", picture())})).status_code == 429
        assert left_behind(tmp_path) == []
        file = {"file": ("a.png", picture())}
        kept = (await client.post("/v1/files", files=file)).json()["id"]
        assert (await client.post("/v1/files", files=file)).status_code == 409
        assert {name.split("/")[0] for name in left_behind(tmp_path)} == {kept}
    services.script.may_go_on.set()


async def test_a_commit_that_failed_keeps_the_picture_for_whoever_it_may_belong_to(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection breaks after the server has committed, before it says so."""
    async with open_client(gateway_settings(tmp_path, services)) as client:
        write = Database.write

        def lose_the_answer(self: Database, work: Any) -> Any:
            write(self, work)
            raise ConnectionError("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", lose_the_answer)
            with pytest.raises(ConnectionError):
                await client.post("/generate", files={"image": ("a.png", picture())})
        job = (await client.get("/v1/jobs")).json()["data"][0]
        await until(client, job["id"], lambda job: job["state"] == "completed")
