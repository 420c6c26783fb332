"""`Range`: what is no range of bytes is ignored, and 416 is for files that have none of them (RFC 9110, 14)."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.api.media.ranges import RangedFile

BYTES = bytes(range(100))
WHOLE, NONE = 200, 416


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-", BYTES), ("bytes=0-99", BYTES), ("bytes=90-500", BYTES[90:]), ("bytes=-1", BYTES[-1:]),
        ("bytes=-500", BYTES), ("BYTES=3-4", BYTES[3:5]), ("Bytes = 3-4 ", BYTES[3:5]),
        ("bytes=5-9,200-300", BYTES[5:10]),
        ("bytes=,3-4", BYTES[3:5]), ("bytes=3-4, ,", BYTES[3:5]), ("bytes=0-18446744073709551615", BYTES),
        ("bytes=-99999999999999999999", BYTES), ("bytes=18446744073709551616-", NONE), ("bytes=,", WHOLE),
        ("bytes=٣-٤".encode(), WHOLE), ("bytes=3-4;5-6", WHOLE),
        ("bytes=200-,5-9", BYTES[5:10]), ("bytes=-0,5-9", BYTES[5:10]),
        ("bytes=100-", NONE), ("bytes=-0", NONE), ("bytes=100-200,300-", NONE),
        ("lines=1-2", WHOLE), ("items=0-5", WHOLE), ("bytes=5-2", WHOLE), ("bytes=a-b", WHOLE), ("bytes=", WHOLE),
        ("bytes", WHOLE), ("bytes=-", WHOLE), ("bytes=0-1,5-2", WHOLE), ("bytes=1-23-4", WHOLE),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(50)), WHOLE), ("", WHOLE),
    ],
)
async def test_a_range_is_served_ignored_or_unsatisfiable(
    tmp_path: Path, header: str | bytes, wanted: bytes | int
) -> None:
    answer = await ask(tmp_path, {"Range": header})
    if isinstance(wanted, bytes):
        assert (answer.status_code, answer.content) == (206, wanted)
    else:
        assert answer.status_code == wanted
        assert answer.status_code != NONE or answer.headers["Content-Range"] == "bytes */100"
        assert answer.status_code != WHOLE or answer.content == BYTES


@pytest.mark.parametrize(
    ("condition", "status"),
    [('"tag"', 416), ('"other"', 200), ('W/"tag"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200), (None, 416)],
)
async def test_a_condition_comes_before_the_range(tmp_path: Path, condition: str | None, status: int) -> None:
    headers = {"Range": "bytes=500-"} | ({} if condition is None else {"If-Range": condition})
    assert (await ask(tmp_path, headers)).status_code == status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def video(module_client: httpx.AsyncClient) -> str:
    """Where a finished one lies."""
    made = await module_client.post("/generate", json={"prompt": "a kite"}, headers={"Prefer": "wait=20"})
    return made.json()["urls"]["content"]


OLD, NOW = "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("headers", "status"), [
    ({"If-Match": '"x"'}, 412), ({"If-Match": "W/{tag}"}, 412), ({"If-Match": '"x", {tag}'}, 200),
    ({"If-Match": "*"}, 200), ({"If-Match": '"x"', "Range": "bytes=0-1"}, 412),
    ({"If-Match": "{tag}", "If-Unmodified-Since": OLD}, 200), ({"If-Unmodified-Since": OLD}, 412),
    ({"If-Unmodified-Since": NOW}, 200), ({"If-Unmodified-Since": "soon"}, 200),
    ({"If-None-Match": "{tag}", "Range": "bytes=0-1"}, 304), ({"If-None-Match": "W/{tag}"}, 304),
    ({"If-None-Match": '"a,b",{tag}'}, 304), ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": "{tag}", "If-Match": '"x"'}, 412), ({"If-None-Match": '"x"', "If-Modified-Since": NOW}, 200),
    ({"If-Modified-Since": NOW}, 304), ({"If-Modified-Since": OLD}, 200), ({"If-Modified-Since": "soon"}, 200),
    ({"If-Modified-Since": "{date}"}, 304), ({"If-Unmodified-Since": "{date}"}, 200),
    ({"If-Range": "{date}", "Range": "bytes=0-1"}, 206), ({"If-Range": OLD, "Range": "bytes=0-1"}, 200),
])
async def test_what_a_request_is_bound_to_is_looked_at_in_the_order_of_the_rfc(
    module_client: httpx.AsyncClient, video: str, headers: dict[str, str], status: int
) -> None:
    whole = await module_client.get(video)
    own = {"tag": whole.headers["ETag"], "date": whole.headers["Last-Modified"]}
    sent = {name: value.format(**own) for name, value in headers.items()}
    assert (await module_client.get(video, headers=sent)).status_code == status
    head = await module_client.head(video, headers=sent | {"Range": "bytes=0-1"})
    assert head.status_code == (200 if status == 206 else status), "a range is for GET alone"


async def ask(folder: Path, headers: dict[str, Any]) -> httpx.Response:
    path = folder / "file"
    path.write_bytes(BYTES)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await RangedFile(path, stat_result=path.stat(), headers={"ETag": '"tag"'})(scope, receive, send)

    outer = FastAPI()
    outer.mount("/", app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://localhost") as client:
        return await client.get("/file", headers=headers)
