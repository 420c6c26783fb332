"""The `openai` package, unchanged, against a live server."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI
from PIL import Image

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_socket_client
from tests.unit.gateway.model_services import Services, video_bytes

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
async def sdk(tmp_path: Path, services: Services) -> AsyncIterator[AsyncOpenAI]:
    settings = gateway_settings(tmp_path, services, max_queued_jobs=8)
    async with (
        open_socket_client(settings) as client,
        AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="none needed", max_retries=0) as opened,
    ):
        yield opened


async def test_a_video_is_created_polled_downloaded_and_deleted(
    sdk: AsyncOpenAI, services: Services, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    video = await sdk.videos.create_and_poll(
        prompt="the cat turns its head", input_reference=("cat.png", picture(), "image/png"), seconds="4",
        size="256x192",  # pyright: ignore[reportArgumentType] - its type names OpenAI's own sizes
        poll_interval_ms=20,
    )
    assert (video.status, video.progress, video.object) == ("completed", 100, "video")
    assert (video.model, video.size, video.prompt) == ("tiny-wan", "256x192", "the cat turns its head")
    assert video.seconds == "4.0625", "65 frames: the nearest 4k+1 at 16 frames a second"
    assert video.completed_at is not None
    assert video.completed_at >= video.created_at
    assert video.error is None
    content = await sdk.videos.download_content(video.id)
    assert content.content == video_bytes(video.id)
    assert services.script.requests[video.id].image is not None
    thumbnail = await sdk.videos.download_content(video.id, variant="thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).size == (256, 192)
    sheet = await sdk.videos.download_content(video.id, variant="spritesheet")
    assert sheet.response.headers["Content-Type"] == "image/jpeg"
    gone = await sdk.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        await sdk.videos.retrieve(video.id)
    assert left_behind(tmp_path) == []


async def test_words_alone_and_a_picture_in_json_or_by_file_id_work_too(
    sdk: AsyncOpenAI, picture: Callable[..., bytes], services: Services
) -> None:
    words = await sdk.videos.create(prompt="a kite", extra_body={"seed": 7, "metadata": {"mine": "1"}})
    assert words.status in ("queued", "in_progress")
    assert (await sdk.videos.poll(words.id, poll_interval_ms=20)).status == "completed"
    assert services.script.requests[words.id].seed == 7
    uploaded = await sdk.files.create(file=("cat.png", picture(), "image/png"), purpose="vision")
    # Beside the named parameter, which takes nothing but files in this version of the package.
    reference = {"input_reference": {"file_id": uploaded.id}}
    by_file = await sdk.videos.create(prompt="a kite", extra_body=reference)
    assert (await sdk.videos.poll(by_file.id, poll_interval_ms=20)).status == "completed"
    assert services.script.requests[by_file.id].image is not None
    text = await sdk.post(
        "/videos", cast_to=openai.types.Video,
        body={"prompt": "a kite", "seconds": "2", **reference},
    )
    assert text.seconds == "2.0625"


async def test_pages_follow_each_other_in_both_orders(sdk: AsyncOpenAI) -> None:
    made = [(await sdk.videos.create(prompt=f"kite {n}")).id for n in range(5)]
    newest = await sdk.videos.list(limit=2)
    assert ([video.id for video in newest.data], newest.has_more) == ([made[4], made[3]], True)
    assert [video.id async for video in sdk.videos.list(limit=2)] == made[::-1]
    assert [video.id async for video in sdk.videos.list(limit=2, order="asc")] == made
    assert [video.id async for video in sdk.videos.list(after=made[2])] == [made[1], made[0]]


async def test_a_remix_keeps_everything_but_the_words(
    sdk: AsyncOpenAI, services: Services, picture: Callable[..., bytes]
) -> None:
    video = await sdk.videos.create_and_poll(
        prompt="slow zoom in", input_reference=("cat.png", picture(), "image/png"), seconds="4", poll_interval_ms=20,
        extra_body={"enhance": "never"},
    )
    remix = await sdk.videos.remix(video.id, prompt="slow zoom out")
    assert remix.remixed_from_video_id == video.id
    assert (await sdk.videos.poll(remix.id, poll_interval_ms=20)).status == "completed"
    first, second = services.script.requests[video.id], services.script.requests[remix.id]
    assert second == first.model_copy(update={"prompt": "slow zoom out"})


def _remix(sdk: AsyncOpenAI) -> Callable[[str], Awaitable[openai.types.Video]]:
    return lambda video_id: sdk.videos.remix(video_id, prompt="a kite")


async def test_refusals_are_raised_as_the_packages_own_errors(sdk: AsyncOpenAI, services: Services) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.videos.create(prompt="a kite", model="sora-2")
    assert (refused.value.type, refused.value.code, refused.value.param) == (
        "invalid_request_error", "unknown_model", "model",
    )
    assert "tiny-wan" in refused.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.videos.create(prompt="a kite", seconds="12")
    assert refused.value.param == "seconds"
    with pytest.raises(openai.BadRequestError):
        await sdk.videos.create(prompt="a kite", input_reference=("cat.png", b"not a picture", "image/png"))
    with pytest.raises(openai.BadRequestError):
        await sdk.videos.create(prompt="a kite", extra_body={"colour": "red"})
    for call in (sdk.videos.retrieve, sdk.videos.delete, sdk.videos.download_content, _remix(sdk)):
        with pytest.raises(openai.NotFoundError) as missing:
            await call("video_no")
        assert missing.value.code == "video_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.videos.list(limit=1000)
    assert refused.value.param == "limit"
    services.script.may_go_on.clear()
    waiting = await sdk.videos.create(prompt="a kite")
    with pytest.raises(openai.ConflictError) as early:
        await sdk.videos.download_content(waiting.id)
    assert early.value.code == "video_not_available"
    with pytest.raises(openai.ConflictError):
        await sdk.videos.remix(waiting.id, prompt="another kite")

    async def create_many() -> None:
        for _ in range(20):
            await sdk.videos.create(prompt="a kite")

    with pytest.raises(openai.RateLimitError) as full:
        await create_many()
    assert (full.value.type, full.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    services.script.may_go_on.set()


async def test_a_video_that_failed_or_still_renders_says_so_and_can_be_deleted(
    sdk: AsyncOpenAI, services: Services, tmp_path: Path
) -> None:
    services.script.describe_status = 400
    failed = await sdk.videos.create_and_poll(prompt="a kite", extra_body={"enhance": "always"}, poll_interval_ms=20)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "vl_service_refused"
    services.script.may_go_on.clear()
    running = await sdk.videos.create(prompt="a kite")
    assert (await sdk.videos.delete(running.id)).deleted
    services.script.may_go_on.set()
    await sdk.videos.delete(failed.id)
    assert left_behind(tmp_path) == []


async def test_every_error_on_these_routes_and_only_there_has_openais_body(tmp_path: Path, services: Services) -> None:
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        for method, path in (("GET", "/v1/videos/no"), ("PUT", "/v1/videos"), ("GET", "/v1/videos/a/b/c"),
                             ("POST", "/v1/videos"), ("POST", "/v1/videos/no/remix"), ("GET", "/v1/videos?limit=x")):
            answer = await client.request(method, path)
            assert 400 <= answer.status_code < 500
            assert answer.headers["Content-Type"] == "application/json"
            assert set(json.loads(answer.text)) == {"error"}
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert (await client.head("/v1/videos/no/content")).status_code == 404
        for path in ("/v1/videosx", "/v1/jobs/no", "/v1/files/no"):
            assert (await client.get(path)).headers["Content-Type"] == "application/problem+json"


async def test_files_and_models_are_read_and_refused_in_the_sdks_words(
    sdk: AsyncOpenAI, picture: Callable[..., bytes]
) -> None:
    models = (await sdk.models.list()).data
    assert [(model.object, model.owned_by) for model in models] == [("model", "stillmotion")] * 2
    assert (await sdk.models.retrieve(models[0].id)).created > 1_600_000_000
    for asking, status, code, param in (
        (sdk.models.retrieve("sora/2"), 404, "model_not_found", None),
        (sdk.files.retrieve("file_none"), 404, "file_not_found", "file_id"),
        (sdk.files.create(file=("a.png", b"no picture"), purpose="vision"), 415, "image_format_unsupported", "file"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            await asking
        assert (refused.value.status_code, refused.value.code, refused.value.param) == (status, code, param)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["message"]
