"""Callers who wait for descriptions: as many at one time as the services say they answer, and few behind them."""

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.conftest import gateway_settings, open_gateway
from tests.unit.gateway.model_services import Script, running_services

WORDS: dict[str, Any] = {"tasks": [{"kind": "prompt", "user_prompt": "a kite"}]}


@pytest.mark.parametrize(("said", "at_once", "answered"), [
    pytest.param([None], [2], 2 + 8, id="one that says nothing"),
    pytest.param([12], [12], 12 + 12, id="one of many slots"),
    pytest.param([6, None], [6, 2], 8 + 8, id="two, each as much as it takes"),
])
async def test_callers_have_as_many_places_as_the_services_answer_at_once(
    said: list[int | None], at_once: list[int], answered: int, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        services = [stack.enter_context(running_services()) for _ in said]
        for one, number in zip(services, said, strict=True):
            one.script.vl_at_once = number
        settings = gateway_settings(tmp_path, services[0], vl_url_given=",".join(one.vl_url for one in services))
        client, _ = await stack.enter_async_context(open_gateway(settings))
        assert (await client.get("/readyz")).status_code == 200
        for one in services:
            one.script.may_go_on.clear()
        calls = [asyncio.create_task(client.post("/v1/describe", json=WORDS)) for _ in range(answered + 5)]
        refused = [await call for call in itertools.islice(asyncio.as_completed(calls), 5)]
        for answer in refused:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            assert answer.json()["code"] == "vl_service_busy"
        for one, most in zip(services, at_once, strict=True):
            await describing(one.script, most)
        for one in services:
            one.script.may_go_on.set()
        answers = await asyncio.gather(*calls)
        assert [answer.status_code for answer in answers].count(200) == answered
        assert [one.script.most_describing for one in services] == at_once


async def test_places_follow_what_the_services_say_while_callers_wait(tmp_path: Path) -> None:
    with running_services() as services:
        settings = gateway_settings(tmp_path, services)
        async with open_gateway(settings) as (client, _):
            script = services.script
            await client.get("/readyz")
            script.may_go_on.clear()
            calls = [asyncio.create_task(client.post("/v1/describe", json=WORDS)) for _ in range(8)]
            await describing(script, 2)
            script.vl_at_once = 5  # it was started anew, with more slots
            async with asyncio.timeout(20):
                while script.describing < 5:  # who comes after the gateway heard of it makes room for all
                    calls.append(asyncio.create_task(client.post("/v1/describe", json=WORDS)))
                    await asyncio.sleep(0.2)
            script.may_go_on.set()
            assert {answer.status_code for answer in await asyncio.gather(*calls)} <= {200, 503}
            assert script.most_describing == 5


async def describing(script: Script, count: int) -> None:
    async with asyncio.timeout(20):
        while script.describing < count:  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.01)
