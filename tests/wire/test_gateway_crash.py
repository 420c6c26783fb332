"""A gateway killed with SIGKILL at any point loses no job and renders none twice."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.gateway.conftest import gateway_settings, open_client
from tests.unit.gateway.model_services import Services, running_services, video_bytes

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def services() -> Iterator[Services]:
    with running_services() as running:
        yield running


class GatewayProcess:
    """`python -m gateway` on a data folder that outlives it."""

    def __init__(self, data_dir: Path, services: Services) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._data_dir = data_dir
        self._environment = {
            **os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}",
            "STILLMOTION_DATA": str(data_dir),
            "GATEWAY_PORT": str(self.port), "GATEWAY_VL_URL": services.vl_url, "GATEWAY_VIDEO_URL": services.video_url,
            "GATEWAY_ENGINE_POLL_S": "0.05", "GATEWAY_CONCURRENCY": "4", "GATEWAY_PROVENANCE": "false",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._data_dir / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], env=self._environment, cwd=REPOSITORY, stderr=log, stdout=log
            )

    def stop(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(timeout=60)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=120)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False
        ) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    await client.get("/livez")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline, (self._data_dir / "gateway.log").read_text()[-3000:]
                    await asyncio.sleep(0.05)
            yield client


@pytest.fixture
def gateway(tmp_path: Path, services: Services) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path, services)
    process.start()
    yield process
    process.stop(signal.SIGKILL)


async def reach(client: httpx.AsyncClient, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        if reached(job):
            return job
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.02)


def ended(job: dict[str, Any]) -> bool:
    return job["state"] in ("completed", "failed", "canceled")


@pytest.mark.full  # tests/durability/test_takeover.py has it on Postgres
async def test_sigterm_leaves_the_render_running_and_the_next_process_takes_it_up(
    gateway: GatewayProcess, services: Services
) -> None:
    services.script.may_go_on.clear()
    async with gateway.client() as client:
        running = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await reach(client, running, lambda job: job["progress"]["step"] == 2)
    gateway.stop(signal.SIGTERM)
    assert services.script.deleted == [], "a stop is no cancel"
    services.script.may_go_on.set()
    gateway.start()
    async with gateway.client() as client:
        assert (await reach(client, running, ended))["state"] == "completed"
    assert services.script.begun == [running]


async def test_killed_again_and_again_no_job_is_lost_and_none_rendered_twice(
    gateway: GatewayProcess, services: Services, tmp_path: Path
) -> None:
    """Once in the middle of a render, which finishes while nobody watches, and once at any point."""
    services.script.step_s = 0.03
    services.script.may_go_on.clear()
    accepted: list[str] = []
    for _ in range(2):
        async with gateway.client() as client:
            for _ in range(6):
                answer = await client.post("/generate", json={"prompt": f"kite {len(accepted)}"})
                accepted.append(answer.json()["id"])
            if not services.script.may_go_on.is_set():
                await reach(client, accepted[0], lambda job: job["progress"]["step"] == 2)
        gateway.stop(signal.SIGKILL)
        services.script.may_go_on.set()
        gateway.start()
    async with gateway.client() as client:
        states = [(await reach(client, job_id, ended))["state"] for job_id in accepted]
        assert states == ["completed"] * len(accepted)
        assert (await client.get(f"/v1/jobs/{accepted[0]}/content")).content == video_bytes(accepted[0])
    assert sorted(services.script.completed) == sorted(accepted), "each rendered once to its end"
    assert sorted(services.script.begun) == sorted(accepted)
    assert list((tmp_path / "gateway" / "files").rglob("*.part")) == []


async def test_two_gateways_never_share_a_data_folder(services: Services, tmp_path: Path) -> None:
    async with open_client(gateway_settings(tmp_path, services)):
        second = GatewayProcess(tmp_path, services)
        second.start()
        try:
            assert await asyncio.to_thread(second.wait) != 0
        finally:
            second.stop(signal.SIGKILL)
    assert "Another gateway works as executor" in (tmp_path / "gateway.log").read_text()
