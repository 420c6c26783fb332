"""What the service answers around its routes: limits, metrics and whom they are for."""

from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from contracts.videos import MAX_VIDEO_BODY_BYTES
from video_service.http.app import create_app
from video_service.queue.files import RenderFiles
from video_service.settings import VideoSettings


@pytest.fixture
def client(tmp_path: Path) -> httpx.AsyncClient:
    """A client of the app before anything is loaded; it has no token."""
    settings = VideoSettings(internal_token=SecretStr("between us"))
    app = create_app(settings, RenderFiles(tmp_path))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://video")


async def test_metrics_need_no_token_and_everything_else_does(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "stillmotion_denoise_step_seconds_count 0.0" in answer.text
    assert (await client.get("/v1/models")).status_code == 401


async def test_a_body_above_the_limit_is_a_problem_of_its_own(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer between us", "Content-Length": str(MAX_VIDEO_BODY_BYTES + 1)}
    answer = await client.put("/v1/videos/a", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
