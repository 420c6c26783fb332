"""The app: answers, refusals, readiness, the queue, the deadline, and what becomes of a call whose worker breaks."""

import asyncio
import base64
import io
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from contracts.describe import DescribeResponse
from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.models import Health, VLModelList
from tests.unit.vl_service.test_process import children, running, wait_until
from vl_service.http.app import create_app
from vl_service.model import WORKER_COMMAND
from vl_service.settings import Settings

Client = httpx.AsyncClient
SMALL = io.BytesIO()
Image.new("RGB", (64, 48), (200, 40, 40)).save(SMALL, "PNG")
RED = base64.b64encode(SMALL.getvalue()).decode()
CAPTION = {"image": RED, "tasks": [{"kind": "caption"}]}
SCRIPTED = (sys.executable, "-m", "tests.unit.vl_service.scripted_worker")


def asking(word: str) -> dict[str, Any]:
    """What makes the scripted worker do something."""
    return {"image": RED, "tasks": [{"kind": "question", "question": word}]}


@asynccontextmanager
async def serving(
    *, wait: bool = True, command: tuple[str, ...] = WORKER_COMMAND, **settings: Any
) -> AsyncIterator[Client]:
    """The app in this process, its worker in another."""
    app = create_app(Settings(**settings), worker_command=command)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    opened = Client(transport=transport, base_url="http://vl", timeout=60)
    async with app.router.lifespan_context(app), opened as client:
        if wait:
            await until_ready(client)
        yield client


def scripted(folder: Path, *, wait: bool = True, **settings: Any) -> Any:
    return serving(wait=wait, command=SCRIPTED, model=str(folder), **settings)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        held = await holds()
        while not held:
            await asyncio.sleep(0.02)
            held = await holds()


async def until_ready(client: Client) -> None:
    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(ready)


async def until_health(client: Client, is_so: Callable[[Health], bool]) -> Health:
    async def looked() -> bool:
        return is_so(await health(client))

    await until(looked)
    return await health(client)


async def health(client: Client) -> Health:
    return Health.model_validate_json((await client.get("/readyz")).content)


async def until_calls(folder: Path, are: str) -> None:
    """Wait until the calls of the scripted worker begin with these."""
    async def so() -> bool:
        return (folder / "calls").exists() and (folder / "calls").read_text().startswith(are)

    await until(so)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A service with the embedded checkpoint, as it is run; it ends when it is asked to, and its worker with it."""
    with running({}) as (process, url):
        wait_until(f"{url}/readyz", 200)
        [worker] = children(process.pid)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert not Path(f"/proc/{worker}").exists()


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(base_url=address, timeout=120) as opened:
        yield opened


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    found = Problem.model_validate_json(response.content)
    assert found.code == code
    return found


async def test_all_four_tasks_are_answered_in_order(client: Client, photograph_base64: Callable[[str], str]) -> None:
    tasks = [{"kind": "question", "question": "What is this?"}, {"kind": "edit_suggestion"}, {"kind": "caption"},
             {"kind": "prompt", "user_prompt": "slow zoom out"}]
    response = await client.post("/v1/describe", json={"image": photograph_base64("chelsea"), "tasks": tasks})
    assert response.status_code == 200, response.text
    described = DescribeResponse.model_validate_json(response.content)
    assert [result.kind for result in described.results] == [task["kind"] for task in tasks]
    assert "tabby cat" in described.results[0].text
    assert described.results[1].text.count("\n") == 2
    assert described.results[3].text == "A photo of a tabby cat. The camera slowly zooms out."
    assert described.results[3].confidence is not None
    assert described.engine == "embedded-cpu"
    assert described.facts["size"] == "451x300"


async def test_language_and_profile_are_obeyed(client: Client, photograph_base64: Callable[[str], str]) -> None:
    body = {"image": photograph_base64("coffee"), "tasks": [{"kind": "caption"}, {"kind": "prompt"}], "language": "zh"}
    chinese = (await client.post("/v1/describe", json=body)).json()["results"]
    assert "浓缩咖啡" in chinese[0]["text"]
    assert "浓缩咖啡" in chinese[1]["text"]
    english = (await client.post("/v1/describe", json={**body, "profile": "i2vgen-xl"})).json()["results"]
    assert "浓缩咖啡" in english[0]["text"]
    assert "cup of espresso" in english[1]["text"]  # this video model reads English only


async def test_words_alone_are_enough_for_a_prompt_and_for_nothing_else(client: Client) -> None:
    response = await client.post("/v1/describe", json={"tasks": [{"kind": "prompt", "user_prompt": "pan left"}]})
    assert response.json()["results"][0]["text"] == "The camera pans left."
    assert response.json()["facts"] == {}
    for task in ({"kind": "caption"}, {"kind": "prompt"}, {"kind": "question", "question": "What?"}):
        refused = await client.post("/v1/describe", json={"tasks": [task]})
        assert "image" in problem(refused, 422, "nothing_to_describe").detail


async def test_a_language_that_the_model_does_not_know_keeps_its_words_and_gets_a_warning(client: Client) -> None:
    tasks = [{"kind": "prompt", "user_prompt": "кот и\nstrawberry", "instruction": "медленно"},
             {"kind": "question", "question": "Что это?"}, {"kind": "prompt", "user_prompt": "a cat jumps"}]
    results = (await client.post("/v1/describe", json={"image": RED, "tasks": tasks})).json()["results"]
    prompt, question, known = results
    assert "кот и\nstrawberry" in prompt["text"]
    assert ["The prompt is in a language" in prompt["warnings"][0],
            "The instruction is in a language" in prompt["warnings"][1]] == [True, True]
    assert question["text"] == "I cannot tell that from the picture."
    assert "not understood" in question["warnings"][0]
    small = "The picture is smaller than 160 pixels: details may be seen wrongly."
    assert known["warnings"] == prompt["warnings"][2:] == question["warnings"][1:] == [small]
    large = io.BytesIO()
    Image.effect_noise((200, 180), 60).save(large, "PNG")
    body = {"image": base64.b64encode(large.getvalue()).decode(), "tasks": tasks[2:]}
    [without] = (await client.post("/v1/describe", json=body)).json()["results"]
    assert "warnings" not in without  # left out where there are none: earlier gateways refuse fields they do not know


@pytest.mark.parametrize(("change", "code", "part"), [
    ({"image": "AAAA"}, "unreadable_image", "PNG"), ({"image": "not base64!"}, "invalid_request", "base64"),
    ({"profile": "sora"}, "unknown_profile", "wan2.1"), ({"colour": "red"}, "invalid_request", "colour"),
    ({"tasks": []}, "invalid_request", "tasks"), ({"tasks": [{"kind": "question"}]}, "invalid_request", "question"),
    ({"tasks": [{"kind": "caption"}] * 9}, "invalid_request", "tasks"), ({"seed": -1}, "invalid_request", "seed"),
])
async def test_a_bad_request_is_a_problem_that_says_what_to_do(
    client: Client, change: dict[str, Any], code: str, part: str
) -> None:
    assert part in problem(await client.post("/v1/describe", json={**CAPTION, **change}), 422, code).detail


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_is_refused_whether_it_says_its_size_or_not(tmp_path: Path, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(45):
            yield b"A" * 1_000_000

    body = b"A" * 45_000_000 if declared else chunks()
    async with scripted(tmp_path, wait=False) as client:
        response = await client.post("/v1/describe", content=body, headers={"content-type": "application/json"})
    assert "smaller picture" in problem(response, 413, "body_too_large").detail


async def test_the_model_is_listed_with_its_profiles(client: Client) -> None:
    info = VLModelList.model_validate_json((await client.get("/v1/models")).content).data[0]
    assert info.id == "embedded"
    assert set(info.profiles) == {"embedded", "wan2.1", "wan2.2", "turbowan", "i2vgen-xl", "plain"}


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
