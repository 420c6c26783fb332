"""The service with the embedded checkpoint, as it is run: what it answers, and what it refuses."""

import base64
import io
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from contracts.describe import DescribeResponse
from contracts.models import VLModelList
from tests.unit.vl_service.http.serving import CAPTION, RED, Client, problem
from tests.unit.vl_service.http.test_process import children, running, wait_until

pytestmark = pytest.mark.slow


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


async def test_the_model_is_listed_with_its_profiles_and_templates(client: Client) -> None:
    info = VLModelList.model_validate_json((await client.get("/v1/models")).content).data[0]
    assert info.id == "embedded"
    assert set(info.profiles) == {"embedded", "wan2.1", "wan2.2", "turbowan", "i2vgen-xl", "plain"}
    assert {"product turntable", "portrait", "loop"} <= {template.name for template in info.templates}
    assert [device.name for device in info.devices] == ["cpu"]


def test_it_answers_a_question_of_a_dialogue_and_joins_wishes(
    address: str, photograph_base64: Callable[[str], str]
) -> None:
    """And says that it follows no dialogue, and what it cannot do."""
    remote = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    picture: Any = {
        "type": "image_url", "image_url": {"url": f"data:image/png;base64,{photograph_base64('chelsea')}"}}
    question: Any = {"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}
    answer = remote.chat.completions.create(model="embedded", messages=[question])
    assert "tabby cat" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 3
    with pytest.raises(openai.BadRequestError, match="Qwen-VL"):
        remote.chat.completions.create(model="embedded", messages=[{"role": "user", "content": "Hello"}])
    turns = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in ("The cat yawns", "slower")]
    wishes = httpx.post(f"{address}/v1/chat", json={"turns": turns, "options": {"kind": "prompt"}}, timeout=60)
    assert "The cat yawns" in wishes.text
    assert "slower" in wishes.text
