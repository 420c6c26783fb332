"""`POST /generate`, end to end over fake services."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.unit.gateway.conftest import left_behind, until
from tests.unit.gateway.model_services import Services, video_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT = {"Prefer": "wait=20"}


async def test_a_picture_becomes_a_video_with_a_prompt_written_from_it(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], data_dir: Path
) -> None:
    answer = await client.post("/generate", files={"image": ("cat.png", picture())}, headers=WAIT)
    job = answer.json()
    assert answer.status_code == 200, job
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert job["state"] == "completed", job
    assert job["original_prompt"] is None
    assert job["actual_prompt"] == "the cat, slowly turning"
    assert job["caption"] == "a grey cat on a sill"
    assert [task.kind for task in services.script.describe_calls[0].tasks] == ["caption", "prompt"]
    assert set(job["timings"]) == {
        "queued", "describing", "rendering", "render.text", "render.condition", "render.denoise", "render.decode",
        "render.write", "saving", "total",
    }
    content = await client.get(job["urls"]["content"])
    assert content.content == video_bytes(job["id"])
    assert hashlib.sha256(content.content).hexdigest() == job["video"]["sha256"]
    await until(client, job["id"], lambda _: job["id"] in services.script.deleted)  # the render is forgotten there
    assert left_behind(data_dir, job["id"]) == [
        "input.png", "last_frame.png", "spritesheet.jpg", "thumbnail.jpg", "video.mp4"]


async def test_an_accepted_request_is_answered_at_once_with_where_to_look(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"prompt": "a kite over dunes"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert job["state"] in ("queued", "running")
    assert isinstance(job["parameters"]["seed"], int)
    await until(client, job["id"], lambda job: job["state"] == "completed")


async def test_words_alone_are_rendered_as_they_are_and_nothing_is_described(
    client: httpx.AsyncClient, services: Services
) -> None:
    job = (await client.post("/generate", json={"prompt": "a kite over dunes", "seed": 7}, headers=WAIT)).json()
    assert job["state"] == "completed"
    assert job["actual_prompt"] == job["original_prompt"] == "a kite over dunes"
    assert services.script.describe_calls == []
    rendered = services.script.requests[job["id"]]
    assert rendered.image is None
    assert rendered.seed == job["parameters"]["seed"] == 7


@pytest.mark.parametrize(
    ("enhance", "actual"),
    [("auto", "zoom out, slowly turning"), ("always", "zoom out, slowly turning"), ("never", "zoom out")],
)
async def test_words_with_a_picture_are_enhanced_unless_they_must_stand(
    client: httpx.AsyncClient, picture: Callable[..., bytes], enhance: str, actual: str
) -> None:
    body = {"image": base64.b64encode(picture()).decode(), "prompt": "zoom out", "enhance": enhance}
    job = (await client.post("/generate", json=body, headers=WAIT)).json()
    assert job["state"] == "completed", job
    assert job["actual_prompt"] == actual
    assert job["original_prompt"] == "zoom out"
    assert job["caption"] == "a grey cat on a sill", "captioned even where the words stand"


async def test_both_encodings_and_both_spellings_of_a_picture_mean_the_same(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    data = picture()
    text = base64.b64encode(data).decode()
    fields = {"prompt": "slow pan left", "seed": "5", "num_frames": "9", "guidance_scale": "2.5", "enhance": "never"}
    answers = [
        await client.post("/generate", files={"image": ("any.bin", data)}, data=fields, headers=WAIT),
        await client.post("/generate", json={**fields, "image": text}, headers=WAIT),
        await client.post("/generate", json={**fields, "image": f"data:image/png;base64,{text}"}, headers=WAIT),
    ]
    jobs = [answer.json() for answer in answers]
    assert [job["state"] for job in jobs] == ["completed"] * 3, jobs
    assert jobs[0]["parameters"] == jobs[1]["parameters"] == jobs[2]["parameters"]
    rendered = [services.script.requests[job["id"]] for job in jobs]
    assert rendered[0] == rendered[1] == rendered[2]
    assert rendered[0].image is not None


async def test_without_a_size_one_that_shows_the_whole_picture_is_taken_a_recommended_one_where_that_does(
    client: httpx.AsyncClient, picture: Callable[..., bytes]
) -> None:
    for (width, height), size in {(640, 480): (256, 192), (300, 420): (160, 224), (200, 203): (192, 192)}.items():
        answer = await client.post("/generate", files={"image": ("a.png", picture(width, height))})
        parameters = answer.json()["parameters"]
        assert (parameters["width"], parameters["height"]) == size


async def test_accept_video_returns_the_bytes(client: httpx.AsyncClient, picture: Callable[..., bytes]) -> None:
    answer = await client.post("/generate", files={"image": ("a.png", picture())}, headers={"Accept": "video/mp4"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.content == video_bytes(answer.headers["Location"].rsplit("/", 1)[1])


async def test_accept_video_returns_the_problem_of_a_failed_job(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.describe_status = 422
    answer = await client.post("/generate", files={"image": ("a.png", picture(311))}, headers={"Accept": "video/mp4"})
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert problem["code"] == "vl_service_refused"
    assert problem["job_id"] == answer.headers["Location"].rsplit("/", 1)[1]
    assert "the script says no" in problem["detail"]


async def test_a_wait_that_ends_before_the_job_answers_202(client: httpx.AsyncClient, services: Services) -> None:
    services.script.may_go_on.clear()
    answer = await client.post("/generate", json={"prompt": "a kite"}, headers={"Prefer": "respond-async, wait=0"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=0"
    services.script.may_go_on.set()
