"""No error leaves a service as plain text, whichever part of the framework answers it."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response

from web.edge import ErrorBodiesMiddleware


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ErrorBodiesMiddleware, dialects={})
    path = tmp_path / "video.mp4"
    path.write_bytes(b"0123456789")

    @app.get("/file")
    async def file() -> Response:
        return FileResponse(path)

    @app.get("/text")
    async def text() -> Response:
        return PlainTextResponse("fine")

    return app


async def call(app: FastAPI, method: str, path: str, **more: object) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return await client.request(method, path, **more)  # pyright: ignore[reportArgumentType] - passed through


@pytest.mark.parametrize(("header", "status", "code"), [
    ("bytes=50-60", 416, "range_not_satisfiable"), ("bytes=5-2", 400, "bad_request"), ("lines=1-2", 400, "bad_request"),
])
async def test_a_range_that_cannot_be_served_is_a_problem(app: FastAPI, header: str, status: int, code: str) -> None:
    answer = await call(app, "GET", "/file", headers={"Range": header})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["code"], answer.json()["status"]) == (code, status)
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */10"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


async def test_plain_text_that_is_no_error_and_ranges_that_fit_pass_untouched(app: FastAPI) -> None:
    assert (await call(app, "GET", "/text")).text == "fine"
    assert (await call(app, "GET", "/file", headers={"Range": "bytes=2-4"})).content == b"234"
