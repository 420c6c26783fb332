"""`Range`: what is no range of bytes is ignored, and 416 is for files that have none of them (RFC 9110, 14)."""

from pathlib import Path

import httpx
import pytest
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
        ("bytes=200-,5-9", BYTES[5:10]), ("bytes=-0,5-9", BYTES[5:10]),
        ("bytes=100-", NONE), ("bytes=-0", NONE), ("bytes=100-200,300-", NONE),
        ("lines=1-2", WHOLE), ("items=0-5", WHOLE), ("bytes=5-2", WHOLE), ("bytes=a-b", WHOLE), ("bytes=", WHOLE),
        ("bytes", WHOLE), ("bytes=-", WHOLE), ("bytes=0-1,5-2", WHOLE), ("bytes=1-23-4", WHOLE),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(50)), WHOLE), ("", WHOLE),
    ],
)
async def test_a_range_is_served_ignored_or_unsatisfiable(tmp_path: Path, header: str, wanted: bytes | int) -> None:
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


async def ask(folder: Path, headers: dict[str, str]) -> httpx.Response:
    path = folder / "file"
    path.write_bytes(BYTES)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await RangedFile(path, stat_result=path.stat(), headers={"ETag": '"tag"'})(scope, receive, send)

    outer = FastAPI()
    outer.mount("/", app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://localhost") as client:
        return await client.get("/file", headers=headers)
