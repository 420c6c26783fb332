"""The job routes: look, wait, page, fetch, cancel, remove."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.jobs import Job
from gateway.api.generate import preferred_wait_s, wanted_form
from tests.unit.gateway.conftest import left_behind, until
from tests.unit.gateway.model_services import Services, video_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT = {"Prefer": "wait=20"}


async def finished(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    job = (await client.post("/generate", json={"prompt": "a kite", **body}, headers=WAIT)).json()
    assert job["state"] == "completed", job
    return job


async def test_a_job_read_back_is_the_wire_type_and_says_what_was_in_force(client: httpx.AsyncClient) -> None:
    made = await finished(client, metadata={"shot": "12"})
    job = Job.model_validate((await client.get(made["urls"]["self"])).json())
    assert job.metadata == {"shot": "12"}
    assert job.parameters.model == "tiny-wan"
    assert job.parameters.revision == "r1"
    assert job.parameters.engine == "torch-cpu"
    assert job.video is not None
    assert job.video.duration_s == job.parameters.num_frames / job.parameters.fps
    assert job.progress.fraction == 1.0
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at
    assert job.timings["total"] >= job.timings["queued"] + job.timings["rendering"]


async def test_an_unknown_job_is_a_404_on_every_route(client: httpx.AsyncClient) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/content")]:
        answer = await client.request(method, f"/v1/jobs/job_none{path}")
        assert answer.status_code == 404
        assert answer.json()["code"] == "job_not_found"
        assert answer.json()["job_id"] == "job_none"


async def test_wait_returns_as_soon_as_the_job_ends(client: httpx.AsyncClient, services: Services) -> None:
    services.script.may_go_on.clear()
    job = (await client.post("/generate", json={"prompt": "a kite"})).json()
    early = (await client.get(f"/v1/jobs/{job['id']}?wait=0")).json()
    assert early["state"] in ("queued", "running")
    services.script.may_go_on.set()
    late = (await client.get(f"/v1/jobs/{job['id']}?wait=30")).json()
    assert late["state"] == "completed"


async def test_pages_walk_over_every_job_once_newest_first(client: httpx.AsyncClient) -> None:
    made = [(await finished(client))["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen))
    assert (await client.get("/v1/jobs?cursor=abc")).status_code == 422
    assert (await client.get("/v1/jobs?limit=0")).status_code == 422


async def test_content_has_an_etag_ranges_and_head(client: httpx.AsyncClient) -> None:
    job = await finished(client)
    path, data = job["urls"]["content"], video_bytes(job["id"])
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(data)
    assert head.headers["ETag"] == f'"{job["video"]["sha256"]}"'
    assert head.headers["Accept-Ranges"] == "bytes"
    part = await client.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
    assert (await client.get(path, headers={"Range": "bytes=-7"})).content == data[-7:]
    beyond = await client.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{len(data)}"
    known = await client.get(path, headers={"If-None-Match": head.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    stale = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    assert stale.status_code == 200


async def test_the_checked_picture_is_kept_beside_the_video(
    client: httpx.AsyncClient, picture: Callable[..., bytes]
) -> None:
    answer = await client.post("/generate", files={"image": ("a.png", picture())}, headers=WAIT)
    job = answer.json()
    shown = await client.get(job["urls"]["content"], params={"variant": "input"})
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.content.startswith(b"\x89PNG")
    words = await finished(client)
    missing = await client.get(words["urls"]["content"], params={"variant": "input"})
    assert (missing.status_code, missing.json()["code"]) == (404, "no_picture")
    assert (await client.get(words["urls"]["content"], params={"variant": "poster"})).status_code == 422


async def test_a_job_without_a_video_yet_says_so(client: httpx.AsyncClient, services: Services) -> None:
    services.script.may_go_on.clear()
    job = (await client.post("/generate", json={"prompt": "a kite"})).json()
    assert job["urls"]["content"] is None
    answer = await client.get(f"/v1/jobs/{job['id']}/content")
    assert (answer.status_code, answer.json()["code"]) == (409, "video_not_available")
    services.script.may_go_on.set()


async def test_cancel_reaches_the_running_render_and_the_job_stays_canceled(
    client: httpx.AsyncClient, services: Services
) -> None:
    services.script.may_go_on.clear()
    job = (await client.post("/generate", json={"prompt": "a kite"})).json()
    await until(client, job["id"], lambda job: job["progress"]["step"] == 2)
    canceled = await client.post(job["urls"]["cancel"])
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert job["id"] in services.script.deleted
    services.script.may_go_on.set()
    again = await client.post(job["urls"]["cancel"])
    assert (again.status_code, again.json()["state"]) == (200, "canceled"), "canceling twice changes nothing"
    assert job["id"] not in services.script.completed
    next_one = await finished(client)
    assert next_one["state"] == "completed", "the next job runs"


async def test_an_ended_job_cannot_be_canceled_and_an_unended_one_not_removed(
    client: httpx.AsyncClient, services: Services, data_dir: Path
) -> None:
    done = await finished(client)
    refused = await client.post(done["urls"]["cancel"])
    assert (refused.status_code, refused.json()["code"]) == (409, "job_state_conflict")
    services.script.may_go_on.clear()
    running = (await client.post("/generate", json={"prompt": "a kite"})).json()
    early = await client.delete(running["urls"]["self"])
    assert early.status_code == 409
    assert "cancel it" in early.json()["detail"]
    await client.post(running["urls"]["cancel"])
    services.script.may_go_on.set()
    for job in (done, running):
        assert (await client.delete(job["urls"]["self"])).status_code == 204
        assert (await client.get(job["urls"]["self"])).status_code == 404
        assert not any(job["id"] in name for name in left_behind(data_dir))


async def test_request_ids_and_the_token_travel_to_both_services(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    answer = await client.post(
        "/generate", files={"image": ("a.png", picture(312))}, headers={**WAIT, "X-Request-ID": "trace-42"}
    )
    assert answer.headers["X-Request-ID"] == "trace-42"
    assert [headers["x-request-id"] for headers in services.script.headers] == ["trace-42", "trace-42"]
    drawn = await client.get("/livez", headers={"X-Request-ID": "bad id\twith spaces"})
    assert drawn.headers["X-Request-ID"] != "bad id\twith spaces"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("wait=10", 10), ("respond-async, wait=5", 5), ('WAIT="7"', 7), ("handling=lenient; wait=3", 3), ("", None),
     ("await=9", None), ("wait=soon", None)],
)
async def test_prefer_is_read_as_rfc_7240_says(header: str, seconds: int | None) -> None:
    assert preferred_wait_s(header) == seconds


@pytest.mark.parametrize(
    ("header", "form"),
    [("", "job"), ("*/*", "job"), ("application/json", "job"), ("video/mp4", "video"), ("video/*", "video"),
     ("video/mp4, application/json;q=0.5", "video"), ("application/json, video/mp4;q=0.5", "job"),
     ("application/json, video/mp4", "job"), ("video/mp4;q=x", "job"), ("text/html,*/*;q=0.8", "job")],
)
async def test_only_who_prefers_video_gets_bytes(header: str, form: str) -> None:
    assert wanted_form(header) == form
