"""Two video services behind one name: both render, and one that goes costs no job."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_port, scripted_video_process
from tests.unit.gateway.conftest import gateway_settings, open_client
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.slow

ADDRESSES = ("127.0.0.1", "127.0.0.2")
JOBS = 4


async def test_processes_behind_one_name_share_the_jobs_and_one_that_goes_loses_none(
    tmp_path: Path, vl: Services, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, real = free_port(), socket.getaddrinfo
    named = list(ADDRESSES)

    def answer(host: Any, *args: Any, **given: Any) -> Any:
        return [found for one in named for found in real(one, *args, **given)] if host == "video" else real(
            host, *args, **given)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    both = []
    for address in ADDRESSES:
        (folder := tmp_path / address).mkdir()
        process = scripted_video_process(folder, model, VIDEO_HOST=address, VIDEO_PORT=str(port))
        process.url = f"http://{address}:{port}"
        both.append(process)
    try:
        for process in both:
            process.start()
        for process in both:
            process.wait_ready()
        settings = gateway_settings(tmp_path / "gateway", vl, video_url_given=f"http://video:{port}", job_deadline_s=60)
        async with open_client(settings) as client:
            jobs = []

            async def post() -> None:
                body = {"prompt": f"a slow kite {len(jobs)}", "seed": 1, "steps": 4, "enhance": "never"}
                answer = await client.post("/generate", json=body)
                assert answer.status_code == 202, answer.text
                jobs.append(answer.json())

            async with asyncio.timeout(60):
                while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - its name is looked up
                    await asyncio.sleep(0.05)
                while not all((tmp_path / one / "completions").exists() for one in ADDRESSES):
                    await post()  # the one that is found first may have rendered all before the other is known
                    await asyncio.sleep(0.2)
            named.remove(ADDRESSES[0])
            both[0].kill()
            for _ in range(JOBS):
                await post()
            began = time.monotonic()
            ended = [(await client.get(job["urls"]["self"], params={"wait": 60})).json() for job in jobs]
            assert [(job["state"], job["error"]) for job in ended] == [("completed", None)] * len(jobs)
            assert time.monotonic() - began < settings.abandon_after_s / 2, "nobody waits for what its name has left"
    finally:
        for process in both:
            process.kill()
