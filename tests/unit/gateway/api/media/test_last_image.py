"""`last_image`: how the video ends, under the rules of `image` in every encoding, kept and removed with the job."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import VIDEO_MODEL, Services

BETWEEN = VIDEO_MODEL.model_copy(update={"id": "tiny-between", "tasks": ["flf2v"]})

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(tmp_path: Path, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway with an image-to-video model, and one that animates between two pictures."""
    services.script.models = [VIDEO_MODEL, BETWEEN]
    async with open_client(gateway_settings(tmp_path, services)) as opened:
        yield opened


def a_form(first: bytes, last: bytes, model: str = BETWEEN.id) -> dict[str, Any]:
    return {"files": {"image": ("a.png", first), "last_image": ("b.png", last)}, "data": {"model": model}}


def in_json(first: bytes, last: bytes, model: str = BETWEEN.id) -> dict[str, Any]:
    uri = "data:image/png;base64," + base64.b64encode(last).decode()
    return {"json": {"image": base64.b64encode(first).decode(), "last_image": uri, "model": model}}


def as_text_in_a_form(first: bytes, last: bytes, model: str = BETWEEN.id) -> dict[str, Any]:
    return {"files": {"image": ("a.png", first)},
            "data": {"last_image": base64.b64encode(last).decode(), "model": model}}


@pytest.mark.parametrize("body", [a_form, in_json, as_text_in_a_form])
async def test_both_pictures_reach_the_render_and_go_with_the_job(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], tmp_path: Path,
    body: Callable[..., dict[str, Any]],
) -> None:
    sent = await client.post("/generate", **body(picture(320, 240), picture(128, 256)))
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["id"]
    await until(client, job_id, lambda job: job["state"] == "completed")
    asked = services.script.requests[job_id]
    stored = tmp_path / "gateway" / "files" / job_id
    assert asked.image == (stored / "input.png").read_bytes()
    assert asked.last_image == (stored / "last.png").read_bytes()
    assert asked.image != asked.last_image
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert left_behind(tmp_path) == []


async def test_the_model_says_whether_there_is_an_end(
    client: httpx.AsyncClient, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    first = base64.b64encode(picture()).decode()
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"image": first, "last_image": first}, "body.last_image", "tiny-wan takes no last picture; `model` tiny-bet"),
        ({"image": first, "model": BETWEEN.id}, "body.last_image", "animates between two pictures"),
        ({"last_image": first, "prompt": "x", "model": BETWEEN.id}, "body.image", "goes with `image`"),
        ({"image": first, "last_image": "AAAA", "model": BETWEEN.id}, "body.last_image", ""),
        ({"image": first, "last_image": "https://a.example/b.png", "model": BETWEEN.id}, "body.last_image", "address"),
        ({"image": "AAAA", "last_image": first, "model": BETWEEN.id}, "body.image", ""),
    ]
    for asked, field, told in cases:
        answer = await client.post("/generate", json=asked)
        assert 400 <= answer.status_code < 500, answer.text
        problem = answer.json()
        assert told in problem["detail"]
        assert [error["field"] for error in problem["errors"]] == [field], problem
    assert left_behind(tmp_path) == []


async def test_another_end_is_another_request(client: httpx.AsyncClient, picture: Callable[..., bytes]) -> None:
    key = {"Idempotency-Key": "one"}
    first, ends = picture(), [picture(128, 256), picture(256, 128)]
    one = await client.post("/generate", headers=key, **a_form(first, ends[0]))
    again = await client.post("/generate", headers=key, **in_json(first, ends[0]))
    other = await client.post("/generate", headers=key, **a_form(first, ends[1]))
    assert again.json()["id"] == one.json()["id"]
    assert other.status_code == 422


async def test_two_pictures_of_the_largest_size_fit_in_a_body(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    """Each has its own bound."""
    services.script.models = [BETWEEN]
    large = picture(1200, 900, "BMP", "RGB")
    settings = gateway_settings(tmp_path, services, max_image_bytes=len(large))
    async with open_client(settings) as client:
        assert (await client.post("/generate", **a_form(large, large))).status_code == 202
        refused = await client.post("/generate", **a_form(large, large + b"\0"))
        assert refused.status_code == 413
        assert refused.json()["errors"][0]["field"] == "body.last_image"


async def test_a_remix_has_the_same_end(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    sent = await client.post("/generate", **a_form(picture(), picture(128, 256)))
    job_id = sent.json()["id"]
    await until(client, job_id, lambda job: job["state"] == "completed")
    remix = await client.post(f"/v1/videos/{job_id}/remix", json={"prompt": "slower"})
    assert remix.status_code == 200, remix.text
    await until(client, remix.json()["id"], lambda job: job["state"] == "completed")
    requests = services.script.requests
    assert requests[remix.json()["id"]].last_image == requests[job_id].last_image is not None
