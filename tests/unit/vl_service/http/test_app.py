"""The app: readiness, the queue, the deadline, and what becomes of a call whose worker breaks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from contracts.models import Health
from tests.unit.vl_service.http.serving import (
    CAPTION,
    asking,
    health,
    problem,
    scripted,
    until,
    until_calls,
    until_health,
    until_ready,
)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_is_refused_whether_it_says_its_size_or_not(tmp_path: Path, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(45):
            yield b"A" * 1_000_000

    body = b"A" * 45_000_000 if declared else chunks()
    async with scripted(tmp_path, wait=False) as client:
        response = await client.post("/v1/describe", content=body, headers={"content-type": "application/json"})
    assert "smaller picture" in problem(response, 413, "body_too_large").detail


async def test_while_the_model_loads_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    async with scripted(tmp_path, wait=False) as client:
        assert (await client.get("/livez")).status_code == 200
        waiting = await client.get("/readyz")
        assert waiting.status_code == 503
        told = Health.model_validate_json(waiting.content)
        assert (told.reasons, told.stuck) == ([f"The model {tmp_path} is loading."], False)
        refused = await client.post("/v1/describe", json=CAPTION)
        problem(refused, 503, "model_loading")
        assert "retry-after" in refused.headers
        (tmp_path / "loaded").touch()
        await until_ready(client)


async def test_a_failed_load_is_reported_with_its_reason_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    async with scripted(tmp_path, wait=False) as client:
        failed = await until_health(
            client, lambda now: any("no such checkpoint: nowhere/model" in reason for reason in now.reasons))
        assert not failed.stuck, "it may pass"
        assert "retry-after" in (await client.post("/v1/describe", json=CAPTION)).headers
        assert (await client.get("/livez")).status_code == 200
        (tmp_path / "fails").unlink()
        await until_ready(client)
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200


async def test_a_checkpoint_of_another_kind_is_stuck_at_once_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "refused").touch()
    async with scripted(tmp_path, wait=False) as client:
        await until_health(client, lambda now: now.stuck)
        assert "gpt2" in problem(await client.post("/v1/describe", json=CAPTION), 503, "model_failed").detail


@pytest.mark.parametrize("word", ["cuda", "die"])
async def test_a_broken_device_costs_the_call_and_its_worker_and_nothing_more(tmp_path: Path, word: str) -> None:
    async with scripted(tmp_path) as client:
        first = (await client.post("/v1/describe", json=CAPTION)).json()["revision"]
        for _ in range(2):
            broken = await client.post("/v1/describe", json=asking(word))
            problem(broken, 503, "unavailable")
            assert int(broken.headers["retry-after"]) >= 1
            await until_ready(client)
            later = await client.post("/v1/describe", json=CAPTION)
            assert later.status_code == 200
            assert later.json()["revision"] != first, "another process"


async def test_a_device_that_breaks_in_every_call_makes_the_service_not_ready(tmp_path: Path) -> None:
    async with scripted(tmp_path) as client:
        async def broken_for_good() -> bool:
            await client.post("/v1/describe", json=asking("cuda"))
            return (await health(client)).stuck

        await until(broken_for_good)
        problem(await client.post("/v1/describe", json=CAPTION), 503, "model_failed")


@pytest.mark.parametrize(("word", "status", "code"), [
    ("break", 500, "internal_error"), ("memory", 503, "out_of_memory"), ("engine", 503, "engine_refused"),
])
async def test_what_breaks_a_call_and_no_device_leaves_the_worker(
    tmp_path: Path, word: str, status: int, code: str
) -> None:
    async with scripted(tmp_path) as client:
        before = (await client.get("/v1/models")).json()
        problem(await client.post("/v1/describe", json=asking(word)), status, code)
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200
        assert (await client.get("/v1/models")).json() == before


async def test_a_full_queue_refuses_at_once_and_takes_calls_again_later(tmp_path: Path) -> None:
    async with scripted(tmp_path, queue_limit=2) as client:
        [model] = (await client.get("/v1/models")).json()["data"]
        assert model["at_once"] == 1, "half of the queue: others find a place beside who asks for so much at one time"
        waiting = [asyncio.create_task(client.post("/v1/describe", json=asking("hold"))) for _ in range(2)]
        await until_calls(tmp_path, "+")
        await asyncio.sleep(0.1)
        refused = await client.post("/v1/describe", json=CAPTION)
        problem(refused, 429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        (tmp_path / "let_go").touch()
        assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200
    assert (tmp_path / "calls").read_text() == "+-+-+-", "one at a time"


async def test_after_the_deadline_the_caller_is_told_and_the_worker_freed(tmp_path: Path) -> None:
    async with scripted(tmp_path, deadline_s=0.5) as client:
        before = (await client.get("/v1/models")).json()
        problem(await client.post("/v1/describe", json=asking("hold")), 504, "deadline_exceeded")
        await until_calls(tmp_path, "+-")
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200
        assert (await client.get("/v1/models")).json() == before


async def test_with_a_token_only_its_bearer_is_served(tmp_path: Path) -> None:
    async with scripted(tmp_path, internal_token=SecretStr("secret"), wait=False) as client:
        problem(await client.get("/v1/models"), 401, "unauthorized")

        async def served() -> bool:
            return (await client.get("/v1/models", headers={"Authorization": "Bearer secret"})).status_code == 200

        await until(served)
        assert (await client.get("/livez")).status_code == 200
