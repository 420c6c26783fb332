"""A video that is whole stays made, whoever dies before it was reported."""

from pathlib import Path

import pytest

from contracts.videos import RenderResult
from tests.unit.video_service.queue.test_queue import begin, make_queue, names, put
from video_service.queue.kept_result import keep_result, kept_result


def result_of(video: bytes) -> RenderResult:
    return RenderResult(
        width=64, height=64, num_frames=9, fps=16, steps=4, sampler="euler", guidance_scale=1, seed=1, model="m",
        revision="r", engine="e", dtype="float32", num_bytes=len(video), sha256="0" * 64, timings={"total": 1.0},
    )


async def test_a_render_that_was_done_when_the_service_died_is_completed_and_not_begun_again(tmp_path: Path):
    queue = make_queue(tmp_path)
    render = await put(queue, "a")
    await begin(queue)
    video = queue.store.video_path(render.id)
    video.write_bytes(b"mp4")
    keep_result(video, result_of(b"mp4"))
    again = make_queue(tmp_path)
    await again.open()
    assert again.find("a").state == "completed"
    assert again.find("a").record.status.result == result_of(b"mp4")
    assert await again.next() is None
    await make_queue(tmp_path).open()  # and clears away what the record now says
    assert names(tmp_path / "a") == {"request.json", "status.json", "video.mp4"}


@pytest.mark.parametrize("damage", ["video shorter", "video gone", "note unreadable"])
async def test_a_video_that_is_not_whole_is_rendered_again(damage: str, tmp_path: Path):
    queue = make_queue(tmp_path)
    await put(queue, "a")
    render = await begin(queue)
    video = queue.store.video_path(render.id)
    video.write_bytes(b"mp4")
    keep_result(video, result_of(b"mp4"))
    match damage:
        case "video shorter":
            video.write_bytes(b"m")
        case "video gone":
            video.unlink()
        case _:
            video.with_name("result.json").write_text("{")
    again = make_queue(tmp_path)
    await again.open()
    assert again.find("a").state == "queued"
    assert names(tmp_path / "a") == {"request.json", "status.json"}


async def test_a_render_that_failed_forgets_its_note(tmp_path: Path):
    queue = make_queue(tmp_path)
    await put(queue, "a")
    render = await begin(queue)
    keep_result(queue.store.video_path(render.id), result_of(b""))
    await queue.finish(render, "failed")
    assert kept_result(queue.store.video_path(render.id)) is None
    assert names(tmp_path / "a") == {"request.json", "status.json"}
