"""The gateway against the real video service (its engine alone is scripted)."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.settings import GatewaySettings
from tests.unit.gateway.conftest import open_client
from tests.unit.gateway.model_services import Services, running_services

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT = {"Prefer": "wait=60"}


class VideoProcess:
    """The video service on a fixed port and folder, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._environment = {
            **os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}",
            "VIDEO_PORT": str(self.port),
            "VIDEO_MODEL": str(folder / "wan"), "STILLMOTION_DATA": str(folder / "video"),
            "VIDEO_DEVICE": "cpu", "VIDEO_DTYPE": "float32", "STILLMOTION_INTERNAL_TOKEN": "between us",
        }
        self.start()

    def start(self) -> None:
        with (self._folder / "video.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "tests" / "support" / "scripted_video_service.py")],
                env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # the worker too, as when the machine goes down
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    process = VideoProcess(tmp_path_factory.mktemp("video"))
    yield process
    process.kill()


@pytest.fixture(scope="module")
def vl() -> Iterator[Services]:
    with running_services() as services:
        yield services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    video: VideoProcess, vl: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    settings = GatewaySettings.model_validate({
        "data_dir": tmp_path_factory.mktemp("gateway"), "vl_url_given": vl.vl_url, "min_free_bytes": 1,
        "video_url_given": f"http://127.0.0.1:{video.port}", "internal_token": "between us",
        "provenance": False,  # what the scripted worker writes is no video
    })
    async with open_client(settings) as opened:
        await until(lambda: ready(opened))
        yield opened


async def ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def until(reached: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not await reached():
        assert time.monotonic() < deadline, "not reached in time"
        await asyncio.sleep(0.05)


async def generate(client: httpx.AsyncClient, prompt: str, *, wait: bool = True, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/generate", json={"prompt": prompt, "seed": 1, **fields}, headers=WAIT if wait else {})
    assert answer.is_success, answer.text
    return answer.json()


async def step_reached(client: httpx.AsyncClient, job: dict[str, Any], step: int) -> None:
    async def reached() -> bool:
        return (await client.get(job["urls"]["self"])).json()["progress"]["step"] >= step

    await until(reached)


async def test_a_render_comes_back_byte_for_byte(client: httpx.AsyncClient) -> None:
    job = await generate(client, "a kite", steps=3)
    assert job["state"] == "completed", job
    content = (await client.get(job["urls"]["content"])).content
    assert content == b"a kite 1" * 100
    assert job["video"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert job["parameters"]["model"] == "tiny-wan"
    assert job["timings"]["render.denoise"] > 0


async def test_a_worker_killed_in_mid_render_is_tried_twice_and_then_named(client: httpx.AsyncClient) -> None:
    job = await generate(client, "die", steps=4)
    assert (job["state"], job["error"]["code"]) == ("failed", "worker_died")
    assert "SIGKILL" in job["error"]["detail"]
    assert "Begun again" in job["warnings"][0]
    await until(lambda: ready(client))
    assert (await generate(client, "a kite", steps=3))["state"] == "completed", "the next one works"


async def test_too_little_memory_fails_at_once_with_advice(client: httpx.AsyncClient) -> None:
    job = await generate(client, "exhaust", steps=4)
    assert (job["state"], job["error"]["code"], job["warnings"]) == ("failed", "out_of_memory", [])
    assert "fewer frames" in job["error"]["detail"]


async def test_cancel_stops_the_worker_within_a_step(client: httpx.AsyncClient, video: VideoProcess) -> None:
    job = await generate(client, "a kite", wait=False, steps=50)
    await step_reached(client, job, 2)
    assert (await client.post(job["urls"]["cancel"])).json()["state"] == "canceled"

    async def stopped() -> bool:
        url = f"http://127.0.0.1:{video.port}/v1/videos/{job['id']}"
        async with httpx.AsyncClient(headers={"Authorization": "Bearer between us"}, trust_env=False) as http:
            answer = await http.get(url)
        return answer.status_code == 404 or answer.json()["state"] == "canceled"

    await until(stopped, seconds=60)
    assert (await client.get(job["urls"]["self"])).json()["state"] == "canceled"


async def test_a_video_service_killed_in_mid_render_is_waited_for_and_finishes_the_job(
    client: httpx.AsyncClient, video: VideoProcess
) -> None:
    job = await generate(client, "a kite", wait=False, steps=50)
    await step_reached(client, job, 3)
    video.kill()
    async with asyncio.timeout(30):  # a look of a second ago is still told
        while (await client.get("/readyz")).status_code != 503:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    video.start()
    done = (await client.get(f"{job['urls']['self']}?wait=60")).json()
    assert done["state"] == "completed", done
