"""The app over ASGI: answers, refusals, readiness, the queue and the deadline."""

import asyncio
import base64
import io
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from contracts.describe import DescribeResponse
from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.models import Health, VLModelInfo, VLModelList
from vl_service.app import create_app
from vl_service.backend import Answer, Backend, Deadline, Description, Task
from vl_service.embedded.backend import EmbeddedBackend
from vl_service.images import DecodedImage
from vl_service.load import load_backend
from vl_service.settings import Settings

Client = httpx.AsyncClient
SMALL = io.BytesIO()
Image.new("RGB", (64, 48), (200, 40, 40)).save(SMALL, "PNG")
RED = base64.b64encode(SMALL.getvalue()).decode()
CAPTION = {"image": RED, "tasks": [{"kind": "caption"}]}


class HeldEngine:
    """An engine whose calls wait until the test lets them go; it stands in for a slow model, not for its answers."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.stopped = threading.Event()
        self.running = 0
        self.most_at_once = 0
        self.deadlines: list[Deadline] = []

    @property
    def info(self) -> VLModelInfo:
        return VLModelInfo(id="held", revision="1", engine="test", dtype="none", tasks=[], languages=[], profiles=[])

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.deadlines.append(deadline)
        try:
            while not self.let_go.wait(0.01):
                deadline.check()
        finally:
            self.running -= 1
            self.stopped.set()
        return Description(answers=[Answer(text="Held. Held.")] * len(tasks), facts={})


@asynccontextmanager
async def serving(load: Callable[[Settings], Backend], *, wait: bool = True, **settings: Any) -> AsyncIterator[Client]:
    app = create_app(Settings(**settings), load)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    opened = Client(transport=transport, base_url="http://vl", timeout=60)
    async with app.router.lifespan_context(app), opened as client:
        if wait:
            await until_ready(client)
        yield client


async def until_ready(client: Client) -> None:
    async with asyncio.timeout(60):
        ready = False
        while not ready:
            await asyncio.sleep(0.01)
            ready = (await client.get("/readyz")).status_code == 200


@pytest.fixture
async def client(embedded_backend: EmbeddedBackend) -> AsyncIterator[Client]:
    async with serving(lambda _: embedded_backend) as opened:
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
    english = (await client.post("/v1/describe", json={**body, "profile": "turbowan"})).json()["results"]
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
    assert "warnings" not in known  # left out where there are none: earlier gateways refuse fields they do not know


@pytest.mark.parametrize(("change", "code", "part"), [
    ({"image": "AAAA"}, "image_format", "PNG"), ({"image": "not base64!"}, "image_not_base64", "base64"),
    ({"profile": "sora"}, "unknown_profile", "wan2.1"), ({"colour": "red"}, "invalid_request", "colour"),
    ({"tasks": []}, "invalid_request", "tasks"), ({"tasks": [{"kind": "question"}]}, "invalid_request", "question"),
    ({"tasks": [{"kind": "caption"}] * 9}, "invalid_request", "tasks"), ({"seed": -1}, "invalid_request", "seed"),
])
async def test_a_bad_request_is_a_problem_that_says_what_to_do(
    client: Client, change: dict[str, Any], code: str, part: str
) -> None:
    assert part in problem(await client.post("/v1/describe", json={**CAPTION, **change}), 422, code).detail


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_is_refused_whether_it_says_its_size_or_not(client: Client, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"A" * 1_000_000

    body = b"A" * 30_000_000 if declared else chunks()
    response = await client.post("/v1/describe", content=body, headers={"content-type": "application/json"})
    assert "smaller picture" in problem(response, 413, "body_too_large").detail


async def test_the_model_is_listed_with_its_profiles(client: Client) -> None:
    info = VLModelList.model_validate_json((await client.get("/v1/models")).content).data[0]
    assert info.id == "embedded"
    assert set(info.profiles) == {"embedded", "wan2.1", "wan2.2", "turbowan", "i2vgen-xl"}


async def test_while_the_model_loads_it_is_alive_and_not_ready() -> None:
    loaded = threading.Event()

    def slow_load(_: Settings) -> Backend:
        loaded.wait(60)
        return HeldEngine()

    async with serving(slow_load, wait=False) as client:
        assert (await client.get("/livez")).status_code == 200
        waiting = await client.get("/readyz")
        assert waiting.status_code == 503
        health = Health.model_validate_json(waiting.content)
        assert (health.reasons, health.stuck) == (["the model is still loading"], False)
        refused = await client.post("/v1/describe", json=CAPTION)
        problem(refused, 503, "model_loading")
        assert "retry-after" in refused.headers
        loaded.set()
        await until_ready(client)


async def test_a_failed_load_is_reported_with_its_reason_for_good() -> None:
    def failing(_: Settings) -> Backend:
        raise OSError("no such checkpoint: nowhere/model")

    async with serving(failing, wait=False) as client:
        for _ in range(3):
            await asyncio.sleep(0.05)
            assert (await client.get("/readyz")).status_code == 503
        health = Health.model_validate_json((await client.get("/readyz")).content)
        assert "no such checkpoint: nowhere/model" in health.reasons[0]
        assert health.stuck
        assert "nowhere/model" in problem(await client.post("/v1/describe", json=CAPTION), 503, "model_failed").detail
        assert (await client.get("/livez")).status_code == 200


async def test_a_checkpoint_that_is_not_there_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    async with serving(load_backend, wait=False, model=str(tmp_path / "nowhere")) as client:
        reasons = ["still loading"]
        async with asyncio.timeout(60):
            while "still loading" in reasons[0]:
                await asyncio.sleep(0.05)
                reasons = (await client.get("/readyz")).json()["reasons"]
        assert f"the model {tmp_path / 'nowhere'} could not be loaded" in reasons[0]


async def test_a_full_queue_refuses_at_once_and_takes_calls_again_later() -> None:
    engine = HeldEngine()
    async with serving(lambda _: engine, queue_limit=2) as client:
        waiting = [asyncio.create_task(client.post("/v1/describe", json=CAPTION)) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await client.post("/v1/describe", json=CAPTION)
        problem(refused, 429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        engine.let_go.set()
        assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200
    assert engine.most_at_once == 1


async def test_a_bad_picture_is_refused_while_the_engine_is_busy() -> None:
    engine = HeldEngine()
    async with serving(lambda _: engine) as client:
        busy = asyncio.create_task(client.post("/v1/describe", json=CAPTION))
        async with asyncio.timeout(5):
            problem(await client.post("/v1/describe", json={**CAPTION, "image": "AAAA"}), 422, "image_format")
            assert (await client.get("/readyz")).status_code == 200
        assert not busy.done()
        engine.let_go.set()
        assert (await busy).status_code == 200


async def test_after_the_deadline_the_caller_is_told_and_the_engine_freed() -> None:
    engine = HeldEngine()
    async with serving(lambda _: engine, deadline_s=0.2) as client:
        problem(await client.post("/v1/describe", json=CAPTION), 504, "deadline_exceeded")
        assert engine.deadlines[0].passed()
        assert await asyncio.to_thread(engine.stopped.wait, 5)


async def test_what_the_engine_says_is_polished() -> None:
    engine = HeldEngine()
    engine.let_go.set()
    async with serving(lambda _: engine) as client:
        assert (await client.post("/v1/describe", json=CAPTION)).json()["results"][0]["text"] == "Held."


async def test_an_engine_that_breaks_is_an_internal_error_and_the_next_call_works() -> None:
    class BreaksOnce(HeldEngine):
        broken = False

        def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
            if not self.broken:
                self.broken = True
                raise RuntimeError("out of memory")
            return super().describe(picture, tasks, deadline)

    engine = BreaksOnce()
    engine.let_go.set()
    async with serving(lambda _: engine) as client:
        problem(await client.post("/v1/describe", json=CAPTION), 500, "internal_error")
        assert (await client.post("/v1/describe", json=CAPTION)).status_code == 200


async def test_with_a_token_only_its_bearer_is_served(embedded_backend: EmbeddedBackend) -> None:
    async with serving(lambda _: embedded_backend, internal_token=SecretStr("secret")) as client:
        problem(await client.get("/v1/models"), 401, "unauthorized")
        allowed = await client.get("/v1/models", headers={"Authorization": "Bearer secret"})
        assert allowed.status_code == 200
        assert (await client.get("/livez")).status_code == 200
