"""Laws of the video service's HTTP calls, against the real app whose worker is busy for ever."""

import asyncio
import base64
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from contracts.errors import Problem
from contracts.models import Health, VideoModelList
from contracts.videos import MAX_VIDEO_BODY_BYTES, RenderStatus
from tests.checkpoints.tiny_wan_card import TINY_INFO
from tests.support.idle_video_worker import command
from video_service.http.app import create_app
from video_service.http.service import WORKER_COMMAND
from video_service.queue.files import RenderFiles
from video_service.settings import VideoSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOADS_FOR_EVER = ("bash", "-c", "exec cat <&$0 >/dev/null")
"""A worker that takes everything, says nothing, and ends when its socket does."""
BODY: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1}


Worker = tuple[str, ...]


@pytest.fixture(scope="module")
def busy_worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return command(TINY_INFO, tmp_path_factory.mktemp("worker"))


@asynccontextmanager
async def connect(settings: VideoSettings, worker: Worker) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, RenderFiles(settings.data_dir), worker_command=worker)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://video") as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_service(
    busy_worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that renders `busy`: what comes then waits."""
    settings = VideoSettings(data_dir=tmp_path_factory.mktemp("busy") / "data", max_queue=2)
    async with connect(settings, busy_worker) as client:
        await until(client, "/readyz", lambda answer: answer.status_code == 200)
        await client.put("/v1/videos/busy", json=BODY)
        await until(client, "/v1/videos/busy", lambda answer: answer.json()["state"] == "running")
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def http(one_service: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of which nothing is left but `busy`."""
    yield one_service
    for name in "abc":
        while (await one_service.delete(f"/v1/videos/{name}")).status_code != 404:
            pass


async def until(
    client: httpx.AsyncClient, path: str, wanted: Callable[[httpx.Response], bool]
) -> httpx.Response:
    async with asyncio.timeout(30):
        while not wanted(answer := await client.get(path)):  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.01)
    return answer


def problem(response: httpx.Response) -> Problem:
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content)
    assert found.status == response.status_code
    return found


async def test_a_new_render_is_accepted_with_its_place_and_put_again_found(http: httpx.AsyncClient):
    new = await http.put("/v1/videos/a", json=BODY)
    assert (new.status_code, new.headers["location"]) == (202, "/v1/videos/a")
    assert RenderStatus.model_validate_json(new.content) == RenderStatus(id="a", state="queued", queue_position=1)
    again = await http.put("/v1/videos/a", json=dict(reversed(BODY.items())))
    assert (again.status_code, again.json()) == (200, new.json())
    assert (await http.get("/v1/videos/a")).json() == new.json()


async def test_another_body_under_the_same_id_is_a_conflict(http: httpx.AsyncClient):
    await http.put("/v1/videos/a", json=BODY)
    refused = await http.put("/v1/videos/a", json=BODY | {"seed": 2})
    assert (refused.status_code, problem(refused).code) == (409, "render_conflict")


async def test_a_full_queue_says_when_to_come_back_and_forgets_the_render(http: httpx.AsyncClient):
    for name in "ab":
        assert (await http.put(f"/v1/videos/{name}", json=BODY)).status_code == 202
    refused = await http.put("/v1/videos/c", json=BODY)
    assert (refused.status_code, problem(refused).code) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) == problem(refused).retry_after_s
    assert (await http.get("/v1/videos/c")).status_code == 404
    assert (await http.delete("/v1/videos/a")).status_code == 200
    assert (await http.put("/v1/videos/c", json=BODY)).status_code == 202


@pytest.mark.parametrize(("change", "field"), [
    ({"width": 17}, "body.width"), ({"width": 72}, "body.width"), ({"width": 4096, "height": 4096}, "body.width"),
    ({"num_frames": 10}, "body.num_frames"), ({"num_frames": 101}, "body.num_frames"),
    ({"model": "other"}, "body.model"),
    ({"steps": 51}, "body.steps"), ({"colour": "red"}, "body.colour"), ({"prompt": ""}, "body.prompt"),
    ({"sampler": "ode", "steps": 5}, "body.steps"), ({"image": "!"}, "body.image"),
])
async def test_what_the_model_cannot_serve_is_refused_at_the_door_by_field(
    http: httpx.AsyncClient, change: dict[str, Any], field: str
):
    refused = await http.put("/v1/videos/a", json=BODY | change)
    assert refused.status_code == 422
    assert [one.field for one in problem(refused).errors or []] == [field]
    assert (await http.get("/v1/videos/a")).status_code == 404


async def test_a_picture_is_welcome(http: httpx.AsyncClient):
    buffer = io.BytesIO()
    Image.new("RGB", (80, 64), "teal").save(buffer, "JPEG")
    accepted = await http.put("/v1/videos/a", json=BODY | {"image": base64.b64encode(buffer.getvalue()).decode()})
    assert accepted.status_code == 202


@pytest.mark.parametrize("render_id", ["a.b", "x" * 65, "a%20b", "ä"])
async def test_ids_that_could_name_other_files_are_refused(http: httpx.AsyncClient, render_id: str):
    assert (await http.put(f"/v1/videos/{render_id}", json=BODY)).status_code == 422


async def test_a_body_beyond_any_picture_is_refused_unread(http: httpx.AsyncClient):
    refused = await http.put("/v1/videos/a", content=b"x" * (MAX_VIDEO_BODY_BYTES + 1))
    assert refused.status_code == 413


async def test_a_canceled_queued_render_ends_its_events_and_is_removed_by_a_second_delete(http: httpx.AsyncClient):
    await http.put("/v1/videos/a", json=BODY)
    canceled = await http.delete("/v1/videos/a")
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    events = await http.get("/v1/videos/a/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.text.count("data: ") == 1
    assert '"state":"canceled"' in events.text
    assert (await http.delete("/v1/videos/a")).status_code == 204
    assert (await http.delete("/v1/videos/a")).status_code == 404


async def test_a_canceled_render_put_again_is_queued_again(http: httpx.AsyncClient):
    await http.put("/v1/videos/a", json=BODY)
    await http.delete("/v1/videos/a")
    again = await http.put("/v1/videos/a", json=BODY)
    assert (again.status_code, again.json()["state"]) == (202, "queued")


async def test_content_is_a_conflict_before_the_end_and_missing_for_the_unknown(http: httpx.AsyncClient):
    await http.put("/v1/videos/a", json=BODY)
    early, unknown = await http.get("/v1/videos/a/content"), await http.get("/v1/videos/b/content")
    assert (early.status_code, problem(early).code) == (409, "render_not_finished")
    assert (unknown.status_code, problem(unknown).code) == (404, "not_found")
    assert (await http.get("/v1/videos/b/events")).status_code == 404


async def test_before_the_model_is_loaded_it_is_alive_and_everything_else_says_what_it_waits_for(tmp_path: Path):
    """The HTTP process looks at no checkpoint: that there is none, the worker has to say."""
    settings = VideoSettings(model=str(tmp_path / "nowhere"), data_dir=tmp_path / "data")
    async with connect(settings, LOADS_FOR_EVER) as http:
        assert (await http.get("/livez")).status_code == 200
        answer = await http.get("/readyz")
        health = Health.model_validate_json(answer.content)
        assert (answer.status_code, health.ready) == (503, False)
        assert "is loading" in health.reasons[0]
        assert not health.stuck, "waiting will help"
        for refused in (await http.get("/v1/models"), await http.put("/v1/videos/a", json=BODY)):
            assert (refused.status_code, problem(refused).code) == (503, "unavailable")
            assert "is loading" in problem(refused).detail
            assert int(refused.headers["retry-after"]) >= 1
        assert (await http.get("/v1/videos/a")).status_code == 404


async def test_the_model_is_listed_with_its_bounds(http: httpx.AsyncClient):
    listed = VideoModelList.model_validate_json((await http.get("/v1/models")).content)
    assert [(model.id, [device.name for device in model.devices]) for model in listed.data] == [("tiny-wan", ["cpu"])]
    assert (await http.get("/readyz")).json()["details"]["model"] == "tiny-wan"


@pytest.mark.slow
async def test_a_model_that_is_not_there_leaves_the_service_alive_and_saying_why(tmp_path: Path):
    settings = VideoSettings(model=str(tmp_path / "nowhere"), data_dir=tmp_path / "data")
    async with connect(settings, WORKER_COMMAND) as http:
        answer = await until(http, "/readyz", lambda answer: answer.json()["stuck"])
        assert answer.status_code == 503
        assert "VIDEO_MODEL" in answer.json()["reasons"][0]
        refused = await http.put("/v1/videos/a", json=BODY)
        assert (refused.status_code, problem(refused).code) == (503, "unavailable")
        assert "VIDEO_MODEL" in problem(refused).detail


async def test_when_no_worker_starts_any_more_what_waits_is_let_go_and_new_renders_are_refused(
    busy_worker: Worker, tmp_path: Path
):
    """Who asked for it puts it again, where it can be rendered."""
    once = tmp_path / "once"
    once.touch()
    command = ("bash", "-c", f"rm {once} && exec \"$@\"", "_", *busy_worker)  # the next ones end at their start
    async with connect(VideoSettings(data_dir=tmp_path / "data"), command) as http:
        await until(http, "/readyz", lambda answer: answer.status_code == 200)
        for name in "ab":
            assert (await http.put(f"/v1/videos/{name}", json=BODY)).status_code == 202
        answer = await until(http, "/v1/videos/a", lambda answer: answer.json()["state"] == "running")
        os.kill(int((await http.get("/readyz")).json()["details"]["worker_pid"]), signal.SIGKILL)
        answer = await until(http, "/v1/videos/b", lambda answer: answer.status_code == 404)
        assert problem(answer).code == "not_found"
        assert (await http.get("/v1/videos/a")).json()["error"]["code"] == "worker_died"
        refused = await http.put("/v1/videos/b", json=BODY)
        assert (refused.status_code, problem(refused).code) == (503, "unavailable")
        assert "exit status 1" in problem(refused).detail


async def test_stopping_is_prompt_also_while_workers_keep_dying_at_their_start(tmp_path: Path):
    settings = VideoSettings(data_dir=tmp_path / "data")
    for delay_s in (0.0, 0.002, 0.004, 0.006, 0.008, 0.01):
        async with asyncio.timeout(60), connect(settings, ("false",)):
            await asyncio.sleep(delay_s)


async def test_with_a_token_only_health_is_open(tmp_path: Path):
    settings = VideoSettings.model_validate({"data_dir": tmp_path / "data", "internal_token": "secret"})
    async with connect(settings, LOADS_FOR_EVER) as http:
        assert (await http.put("/v1/videos/a", json=BODY)).status_code == 401
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/v1/videos/a", headers={"Authorization": "Bearer secret"})).status_code == 404
