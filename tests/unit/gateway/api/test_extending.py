"""`extend_from`: a video that goes on from the last frame of an earlier one, at the door, in the queue and on disk."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.auth.keys import KeyLimits, KeyStore
from gateway.database.database import Database
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import VIDEO_MODEL, Services, last_frame_bytes, video_bytes

WORDS = VIDEO_MODEL.model_copy(update={"id": "tiny-words", "tasks": ["t2v"]})

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(tmp_path: Path, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway with an image-to-video model and one for words alone."""
    services.script.models = [VIDEO_MODEL, WORDS]
    async with open_client(gateway_settings(tmp_path, services)) as opened:
        yield opened


def completed(job: dict[str, Any]) -> bool:
    return job["state"] == "completed"


async def rendered(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    sent = await client.post("/generate", json={"prompt": "a kite", "size": "256x192"} | asked)
    assert sent.status_code == 202, sent.text
    return await until(client, sent.json()["id"], completed)


async def test_the_last_frame_and_the_clip_reach_the_render_and_one_video_comes_of_it(
    client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    first = await rendered(client, steps=3, negative_prompt="blur", fps=12, num_frames=29)
    sent = await client.post("/generate", json={"extend_from": first["id"]})
    assert sent.status_code == 202, sent.text
    second = await until(client, sent.json()["id"], completed)
    asked, before = services.script.requests[second["id"]], services.script.requests[first["id"]]
    assert asked.image == last_frame_bytes(first["id"], before)
    assert asked.extends == video_bytes(first["id"])
    assert asked.seed != before.seed
    kept = {"prompt", "negative_prompt", "model", "width", "height", "num_frames", "fps", "steps", "sampler"}
    assert asked.model_dump(include=kept) == before.model_dump(include=kept)
    assert second["actual_prompt"] == first["actual_prompt"]
    assert second["video"]["num_frames"] == 57
    async with asyncio.timeout(10):  # the copy is of no use any more
        while "extended.mp4" in left_behind(tmp_path, second["id"]):  # noqa: ASYNC110 - nothing tells of a file
            await asyncio.sleep(0.01)


async def test_the_first_job_may_be_removed_while_the_second_waits(
    client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    first = await rendered(client)
    services.script.may_go_on.clear()
    second = (await client.post("/generate", data={"extend_from": first["id"], "prompt": "it lands"})).json()
    assert (await client.delete(f"/v1/jobs/{first['id']}")).status_code == 204
    services.script.may_go_on.set()
    job = await until(client, second["id"], completed)
    assert services.script.requests[job["id"]].extends == video_bytes(first["id"])
    assert job["actual_prompt"] == "it lands, slowly turning", "with words of its own the last frame is looked at"
    assert (await client.delete(f"/v1/jobs/{job['id']}")).status_code == 204
    assert left_behind(tmp_path) == []


async def test_a_remix_of_a_continuation_goes_on_from_the_same_clip(
    client: httpx.AsyncClient, services: Services
) -> None:
    first = await rendered(client)
    second = await rendered(client, extend_from=first["id"], size=None)
    remix = await client.post(f"/v1/videos/{second['id']}/remix", json={"prompt": "slower"})
    assert remix.status_code == 200, remix.text
    await until(client, remix.json()["id"], completed)
    one, other = (services.script.requests[job_id] for job_id in (second["id"], remix.json()["id"]))
    assert (one.extends, one.image, one.seed) == (other.extends, other.image, other.seed)


async def test_what_cannot_be_continued_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    first, by_words = await rendered(client), await rendered(client, model="tiny-words")
    services.script.may_go_on.clear()
    running = (await client.post("/generate", json={"prompt": "a boat"})).json()
    before = left_behind(tmp_path)
    image = base64.b64encode(picture()).decode()
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"extend_from": "job_000000000000000000000000"}, 404, "job_not_found", "There is no job"),
        ({"extend_from": running["id"]}, 409, "not_continuable", "cannot be continued: it is "),
        ({"extend_from": first["id"], "image": image}, 422, "image_given_twice", "either a picture or"),
        ({"extend_from": first["id"], "size": "192x192"}, 422, "extension_differs", "256x192 pixels at 16 frames"),
        ({"extend_from": first["id"], "fps": 12}, 422, "extension_differs", "leave `fps` out"),
        ({"extend_from": first["id"], "model": "tiny-words"}, 422, "task_not_supported", "`model` tiny-wan can"),
        ({"extend_from": by_words["id"]}, 422, "task_not_supported", "`model` tiny-wan can"),
    ]
    for asked, status, code, told in cases:
        answer = await client.post("/generate", json=asked)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert told in answer.json()["detail"]
    assert left_behind(tmp_path) == before
    services.script.may_go_on.set()


async def test_a_video_whose_last_frame_was_not_kept_cannot_be_continued(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    first = await rendered(client)
    (tmp_path / "gateway" / "files" / first["id"] / "last_frame.png").unlink()
    answer = await client.post("/generate", json={"extend_from": first["id"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_continuable")


async def test_what_is_too_long_for_one_clip_is_told_how(client: httpx.AsyncClient) -> None:
    for asked, is_told in (({"seconds": 20}, True), ({"num_frames": 161}, True), ({"num_frames": 4}, False),
                           ({"num_frames": 161, "model": "tiny-words"}, False)):
        answer = await client.post("/generate", json={"prompt": "a kite"} | asked)
        assert answer.status_code == 422
        assert ("`extend_from`" in answer.json()["detail"]) == is_told


async def test_a_job_of_another_key_is_not_found(tmp_path: Path, services: Services) -> None:
    settings = gateway_settings(tmp_path, services, keys="required")
    keys = KeyStore(Database(settings.jobs_database_url))
    alice, bob = ({"Authorization": f"Bearer {keys.create(name, KeyLimits())[1]}"} for name in ("alice", "bob"))
    async with open_client(settings) as client:
        client.headers.update(alice)
        first = await rendered(client)
        answer = await client.post("/generate", json={"extend_from": first["id"]}, headers=bob)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
