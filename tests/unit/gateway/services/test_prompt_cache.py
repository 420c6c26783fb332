"""The same picture and question reuse the prompt; anything else does not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.describe import DescribeRequest, DescribeTask, TaskResult
from gateway.database.database import Database
from gateway.services.vl import PromptCache, cache_key
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import VL_MODEL, Services
from tests.unit.gateway.test_metrics import series

REQUEST = DescribeRequest(tasks=[DescribeTask(kind="caption"), DescribeTask(kind="prompt")], seed=3)


async def ended(client: httpx.AsyncClient, image: bytes, **fields: Any) -> dict[str, Any]:
    job = (await client.post("/generate", files={"image": ("a.png", image)}, data=fields)).json()
    return await until(client, job["id"], lambda job: job["state"] == "completed")


async def test_a_picture_seen_before_is_not_described_again_also_after_a_restart(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    settings = gateway_settings(tmp_path, services)
    async with open_client(settings) as client:
        first = await ended(client, picture())
        again = await ended(client, picture())
        assert len(services.script.describe_calls) == 1
        assert (again["actual_prompt"], again["caption"]) == (first["actual_prompt"], first["caption"])
        counted = await series(client)
        assert counted["stillmotion_prompt_cache_lookups_total{outcome=hit}"] == 1
        assert counted["stillmotion_prompt_cache_lookups_total{outcome=miss}"] == 1
    async with open_client(settings) as client:
        restated = await ended(client, picture(), seed=str(again["parameters"]["seed"]))
        assert restated["actual_prompt"] == again["actual_prompt"]
        assert len(services.script.describe_calls) == 1


async def test_another_seed_picture_instruction_or_language_is_described_anew(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        await ended(client, picture(), seed="1")
        for changed in ({"seed": "2"}, {"seed": "1", "instruction": "dramatic"}, {"seed": "1", "language": "zh"},
                        {"seed": "1", "template": "portrait"}):
            await ended(client, picture(), **changed)
        await ended(client, picture(321), seed="1")
    assert len(services.script.describe_calls) == 6
    assert services.script.describe_calls[4].tasks[-1].template == "portrait"


@pytest.mark.parametrize("change", [{"revision": "v2"}, {"id": "other"}])
def test_another_model_or_revision_has_another_key(change: dict[str, str]) -> None:
    models = ([VL_MODEL], [VL_MODEL.model_copy(update=change)])
    assert cache_key(REQUEST, "a", models[0], any_seed=False) != cache_key(REQUEST, "a", models[1], any_seed=False)


def test_many_may_remember_the_same_answer_at_once(tmp_path: Path, where: dict[str, Any]) -> None:
    cache = PromptCache(Database(where.get("database_url", f"sqlite:///{tmp_path}/jobs.sqlite")), max_entries=90)
    answer = [TaskResult(kind="caption", text="a cat")]
    with ThreadPoolExecutor(4) as crowd:
        list(crowd.map(lambda number: cache.keep([f"a{number // 4}", f"b{number // 4}"], answer), range(80)))
    assert cache.find("a0") == cache.find("b19") == answer


def test_the_table_is_bounded_and_what_is_used_stays(tmp_path: Path, where: dict[str, Any]) -> None:
    cache = PromptCache(Database(where.get("database_url", f"sqlite:///{tmp_path}/jobs.sqlite")), max_entries=3)
    answer = [TaskResult(kind="prompt", text="a cat turns")]
    cache.keep(["used"], answer)
    for index in range(20):
        cache.keep([f"key{index}"], answer)
        assert cache.find("used") == answer
    assert sum(cache.find(f"key{index}") is not None for index in range(20)) <= 4
    assert cache.find("key0") is None
