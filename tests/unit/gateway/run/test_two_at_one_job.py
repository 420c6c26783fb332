"""For a moment two executors may have the same job, as when one that was given up for dead comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.jobs.job import JobRecord
from gateway.run.pipeline import Answer
from tests.unit.gateway.conftest import gateway_settings, open_gateway, until
from tests.unit.gateway.model_services import Services, video_bytes


@pytest.mark.parametrize("since", ["before it was begun", "in its render"])
async def test_whoever_comes_second_neither_ends_the_job_nor_takes_its_video(
    tmp_path: Path, services: Services, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.script.may_go_on.clear()
    async with open_gateway(gateway_settings(tmp_path, services)) as (client, opened):
        job = (await client.post("/generate", json={"prompt": "a kite"})).json()
        await until(client, job["id"], lambda job: job["progress"]["stage"] == "rendering")
        looks = [await opened.ledger.get(job["id"])]
        answers: list[tuple[str, Answer]] = []
        if since == "before it was begun":
            looks = [replace(looks[0], state="queued", stage=None)]
        look, looked = opened.ledger.get, asyncio.Event()

        async def get(job_id: str) -> JobRecord:
            looked.set()
            return looks.pop() if looks else await look(job_id)

        async def step(name: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
            answers.append((name, await work()))
            return answers[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(opened.ledger, "get", get)
            second = asyncio.ensure_future(opened.engine._run_job(job["id"], 0, step))
            await looked.wait()
        await asyncio.sleep(0.2)
        services.script.may_go_on.set()
        async with asyncio.timeout(30):
            await second
        assert not answers[0][1]["ended"], "the job had not ended when the second began"
        done = await until(client, job["id"], lambda job: job["state"] == "completed")
        await asyncio.sleep(0.2)
        assert (await client.get(done["urls"]["content"])).content == video_bytes(job["id"])
    assert services.script.begun == [job["id"]]
