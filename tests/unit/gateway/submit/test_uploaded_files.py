"""Uploaded files, and every file of a job over HTTP."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.unit.gateway.conftest import left_behind, until
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.submit.images.test_check import HOSTILE

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


async def upload(client: httpx.AsyncClient, data: bytes, **fields: str) -> dict[str, Any]:
    answer = await client.post("/v1/files", files={"file": ("cat.png", data, "image/png")}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_file_is_uploaded_once_used_often_and_jobs_keep_their_own_copy(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], data_dir: Path
) -> None:
    file = await upload(client, picture(), purpose="user_data")
    assert (file["filename"], file["purpose"], file["object"]) == ("cat.png", "user_data", "file")
    assert (file["width"], file["height"], file["media_type"]) == (320, 240, "image/png")
    assert (await client.get(f"/v1/files/{file['id']}")).json() == file
    first = (await client.post("/generate", json={"file_id": file["id"]})).json()
    second = (await client.post("/generate", files={"file_id": (None, file["id"])})).json()
    gone = await client.delete(f"/v1/files/{file['id']}")
    assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
    for job in (first, second):
        await until(client, job["id"], lambda job: job["state"] == "completed")
        kept = await client.get(f"/v1/jobs/{job['id']}/content", params={"variant": "input"})
        assert Image.open(io.BytesIO(kept.content)).size == (320, 240)
    assert services.script.requests[first["id"]].image == services.script.requests[second["id"]].image
    assert left_behind(data_dir, file["id"]) == []
    for path in ("", "/content"):
        assert (await client.get(f"/v1/files/{file['id']}{path}")).json()["code"] == "file_not_found"
    refused = await client.post("/generate", json={"file_id": file["id"]})
    assert (refused.status_code, refused.json()["code"]) == (404, "file_not_found")


@pytest.mark.parametrize(("data", "code"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_upload_leaves_nothing(
    client: httpx.AsyncClient, data_dir: Path, data: bytes, code: str
) -> None:
    before = left_behind(data_dir)
    answer = await client.post("/v1/files", files={"file": ("cat.png", data, "image/png")})
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] in (code, "body_too_large")
    assert left_behind(data_dir) == before


async def test_what_is_no_upload_is_refused_with_what_to_send(
    client: httpx.AsyncClient, picture: Callable[..., bytes]
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"json": {"file": "x"}}, "unsupported_media_type"), ({"data": {"purpose": "x"}}, "unsupported_media_type"),
        ({"files": {"image": ("a.png", picture())}}, "unexpected_file"),
        ({"files": {"file": ("a.png", picture())}, "data": {"colour": "red"}}, "unknown_field"),
        ({"files": {"file": ("a.png", picture())}, "data": {"purpose": "x" * 100}}, "purpose_too_long"),
        ({"files": {"purpose": (None, "x")}}, "file_missing"),
    ]
    for sent, code in wrong:
        refused = await client.post("/v1/files", **sent)
        assert refused.json()["code"] == code, refused.text
    both = await client.post("/generate", json={"file_id": "file_x", "image": "aGk="})
    assert both.json()["code"] == "image_given_twice"


async def test_every_file_has_etag_range_and_head(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    file = await upload(client, picture())
    job = (await client.post("/generate", json={"file_id": file["id"]})).json()
    await until(client, job["id"], lambda job: job["state"] == "completed")
    places = [(f"/v1/jobs/{job['id']}/content?variant={variant}", kind) for variant, kind in (
        ("video", "video/mp4"), ("thumbnail", "image/jpeg"), ("spritesheet", "image/jpeg"), ("input", "image/png"),
    )]
    places += [(f"/v1/videos/{job['id']}/content?variant=thumbnail", "image/jpeg"),
               (f"/v1/files/{file['id']}/content", "image/png")]
    for place, kind in places:
        whole = await client.get(place)
        assert (whole.status_code, whole.headers["Content-Type"]) == (200, kind), place
        head = await client.head(place)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("ETag", "Content-Length", "Content-Type", "Accept-Ranges"):
            assert head.headers[name] == whole.headers[name]
        part = await client.get(place, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        last = await client.get(place, headers={"Range": "bytes=-5"})
        assert last.content == whole.content[-5:]
        known = await client.get(place, headers={"If-None-Match": whole.headers["ETag"]})
        assert (known.status_code, known.content) == (304, b"")
        stale = await client.get(place, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
        assert stale.status_code == 200
        refused = await client.get(place, headers={"Range": "bytes=99999999-"})
        assert refused.status_code == 416
        assert refused.headers["Content-Range"] == f"bytes */{len(whole.content)}"
        for none in ("bytes=5-2", "bytes=" + "9" * 5000 + "-", "bytes=" + "0-," * 500 + "0-"):
            ignored = await client.get(place, headers={"Range": none})
            assert (ignored.status_code, ignored.content) == (200, whole.content)


async def test_jobs_are_filtered_by_state(client: httpx.AsyncClient, services: Services) -> None:
    services.script.may_go_on.clear()
    held = [(await client.post("/generate", json={"prompt": "a kite"})).json()["id"] for _ in range(2)]
    await client.post(f"/v1/jobs/{held[0]}/cancel")
    canceled = (await client.get("/v1/jobs", params={"state": "canceled", "limit": 1})).json()["data"]
    assert [job["id"] for job in canceled] == [held[0]]
    services.script.may_go_on.set()
    await until(client, held[1], lambda job: job["state"] == "completed")
    states = {job["state"] for job in (await client.get("/v1/jobs", params={"state": "completed"})).json()["data"]}
    assert states == {"completed"}
    assert (await client.get("/v1/jobs", params={"state": "lost"})).status_code == 422
