"""Two video services with different models behind one gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.models import AbsentModel, LoraInfo
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import VIDEO_MODEL, Script, running_services

LARGE = VIDEO_MODEL.model_copy(update={
    "id": "large", "state": "loadable", "loras": [LoraInfo(id="style", modified_at=1.0)],
})
DAMAGED = AbsentModel(id="damaged", reason="Its VAE is damaged: copy it again.")
WORDS: dict[str, Any] = {"prompt": "a kite", "enhance": "never"}


@dataclass(frozen=True)
class Both:
    client: httpx.AsyncClient
    small: Script
    large: Script

    async def states(self) -> dict[str, str]:
        listed = (await self.client.get("/v1/models")).json()["data"]
        return {model["id"]: model["state"] for model in listed if model["kind"] == "video"}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        one, other = (stack.enter_context(running_services()) for _ in range(2))
        one.script.absent = [AbsentModel(id="large", reason="Not here.")]
        other.script.models, other.script.absent = [VIDEO_MODEL, LARGE], [DAMAGED]
        settings = gateway_settings(tmp_path, one, video_url_given=f"{one.video_url},{other.video_url}")
        client = await stack.enter_async_context(open_client(settings))
        found = Both(client, one.script, other.script)
        async with asyncio.timeout(20):
            while "large" not in await found.states():  # noqa: ASYNC110 - nothing else tells it
                await asyncio.sleep(0.05)
        yield found


async def test_a_job_goes_to_the_service_that_has_its_model_and_waits_for_it(both: Both) -> None:
    assert await both.states() == {"tiny-wan": "loaded", "large": "loadable", "damaged": "absent"}
    both.large.video_ready = False
    async with asyncio.timeout(20):
        while "not_ready" not in (await both.client.get("/readyz")).text:  # noqa: ASYNC110 - which looks at both
            await asyncio.sleep(0.05)
    asked = WORDS | {"model": "large", "loras": [{"id": "style"}]}
    waiting = (await both.client.post("/generate", json=asked)).json()
    assert waiting["parameters"]["model"] == "large"
    other = (await both.client.post("/generate", json=WORDS, headers={"Prefer": "wait=20"})).json()
    assert (other["state"], other["parameters"]["model"]) == ("completed", "tiny-wan"), "the line goes on"
    job = (await both.client.get(waiting["urls"]["self"])).json()
    assert (job["state"], job["progress"]["waiting_for"]) == ("queued", "video_service")
    both.large.video_ready = True
    job = await until(both.client, job["id"], lambda job: job["state"] == "completed")
    assert (both.large.puts, both.small.puts) == ([job["id"]], [other["id"]])
    request = both.large.requests[job["id"]]
    assert (request.model, [lora.id for lora in request.loras]) == ("large", ["style"])


@pytest.mark.parametrize(("asked", "code", "words"), [
    ({"model": "sora"}, "unknown_model", "use one of: tiny-wan, large"),
    ({"model": "damaged"}, "model_absent", "Its VAE is damaged: copy it again. Or use one of: tiny-wan, large"),
    ({"loras": [{"id": "style"}]}, "unknown_lora", "VIDEO_LORAS"),
    ({"model": "large", "loras": [{"id": "mood"}]}, "unknown_lora", "there are: style"),
])
async def test_the_door_says_which_models_and_loras_there_are(
    both: Both, asked: dict[str, Any], code: str, words: str
) -> None:
    answer = await both.client.post("/generate", json=WORDS | asked)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert words in answer.json()["detail"]
    assert both.small.puts == both.large.puts == []


@pytest.mark.parametrize(("text", "code"), [('[{"id": "style"}]', None), ("style", "loras_unreadable"),
                                            ('{"id": "style"}', "invalid_request")])
async def test_a_form_names_loras_as_json(both: Both, text: str, code: str | None) -> None:
    form = WORDS | {"model": "large", "loras": text}
    for route in ("/generate", "/v1/videos"):
        answer = await both.client.post(route, data=form)
        body = answer.json()
        assert answer.is_success == (code is None), body
        if code is not None:
            assert code in (body.get("code"), body.get("error", {}).get("code")), body
