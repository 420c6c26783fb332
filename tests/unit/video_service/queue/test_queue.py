"""Laws of admission, order, cancellation and restart, on real files."""

import asyncio
from pathlib import Path

import pytest

from contracts.errors import Problem
from contracts.models import FloatRange, IntRange, VideoModelInfo
from contracts.videos import VideoRequest
from video_service.queue.files import RenderStore
from video_service.queue.queue import MAX_ATTEMPTS, RenderQueue
from video_service.queue.render import QueueFull, Render, RenderConflict, RenderNotFound, RenderStopping, Submission

INFO = VideoModelInfo(
    id="m", revision="r", engine="e", dtype="float32", profile="p", tasks=["t2v"], sizes=["64x64"], size_multiple=16,
    min_side=64, max_pixels=64 * 64, num_frames=IntRange(minimum=1, maximum=9, default=9),
    fps=IntRange(minimum=1, maximum=60, default=16), steps=IntRange(minimum=1, maximum=50, default=4),
    guidance_scale=FloatRange(minimum=1, maximum=9, default=1), samplers=["euler"],
)


def words(prompt: str = "zoom in") -> VideoRequest:
    return VideoRequest(prompt=prompt, width=64, height=64, num_frames=9, fps=16, seed=1)


def make_queue(folder: Path, *, max_waiting: int = 3, max_finished: int = 10, keep_s: float = 60.0) -> RenderQueue:
    return RenderQueue(
        RenderStore(folder), max_waiting=max_waiting, keep_finished_s=keep_s, max_finished=max_finished
    )


@pytest.fixture
def queue(tmp_path: Path) -> RenderQueue:
    return make_queue(tmp_path)


async def submit(queue: RenderQueue, render_id: str, prompt: str = "zoom in") -> tuple[Render, bool]:
    return await queue.put(Submission.of(render_id, words(prompt)), INFO)


async def put(queue: RenderQueue, render_id: str, prompt: str = "zoom in") -> Render:
    render, _ = await submit(queue, render_id, prompt)
    return render


async def begin(queue: RenderQueue) -> Render:
    render = await queue.next()
    assert render is not None
    return render


async def complete(queue: RenderQueue, render: Render) -> None:
    queue.store.video_path(render.id).write_bytes(b"mp4")
    await queue.finish(render, "completed")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_the_same_id_and_body_is_one_render_in_every_living_state(queue: RenderQueue):
    render, created = await submit(queue, "a")
    assert created
    assert await submit(queue, "a") == (render, False)
    await begin(queue)
    assert await submit(queue, "a") == (render, False)
    await complete(queue, render)
    assert await submit(queue, "a") == (render, False)
    assert await queue.next() is None


async def test_many_puts_at_once_make_one_render(queue: RenderQueue):
    answers = await asyncio.gather(*(submit(queue, "a") for _ in range(8)))
    assert sum(created for _, created in answers) == 1
    assert len({id(render) for render, _ in answers}) == 1


async def test_the_same_id_with_another_body_is_refused_and_changes_nothing(queue: RenderQueue, tmp_path: Path):
    await put(queue, "a")
    before = files(tmp_path)
    with pytest.raises(RenderConflict):
        await put(queue, "a", "zoom out")
    assert files(tmp_path) == before


async def test_a_full_queue_refuses_new_renders_only_and_changes_nothing(queue: RenderQueue, tmp_path: Path):
    for name in "abcd":
        await put(queue, name)
        if name == "a":
            await begin(queue)
    before = files(tmp_path)
    with pytest.raises(QueueFull) as refusal:
        await put(queue, "e")
    assert refusal.value.retry_after_s >= 1
    assert files(tmp_path) == before
    with pytest.raises(RenderNotFound):
        queue.find("e")
    assert (await put(queue, "b")).state == "queued"  # attaching needs no place


async def test_a_race_for_the_last_place_has_one_winner(queue: RenderQueue):
    await put(queue, "a")
    await put(queue, "b")
    answers = await asyncio.gather(*(put(queue, name) for name in "cdef"), return_exceptions=True)
    assert sum(isinstance(answer, Render) for answer in answers) == 1
    assert sum(isinstance(answer, QueueFull) for answer in answers) == 3


async def test_renders_go_in_order_and_each_knows_how_many_are_before_it(queue: RenderQueue):
    renders = [await put(queue, name) for name in "abc"]
    assert [render.record.status.queue_position for render in renders] == [0, 1, 2]
    assert await begin(queue) is renders[0]
    assert [render.record.status.queue_position for render in renders] == [None, 1, 2]
    await complete(queue, renders[0])
    assert [render.record.status.queue_position for render in renders] == [None, 0, 1]
    assert await begin(queue) is renders[1]


async def test_canceling_a_queued_render_ends_it_at_once_and_moves_the_others_up(queue: RenderQueue):
    a, b = await put(queue, "a"), await put(queue, "b")
    assert await queue.stop("a") is a
    assert (a.state, b.record.status.queue_position) == ("canceled", 0)
    assert await begin(queue) is b


async def test_canceling_a_running_render_asks_and_waits_for_its_end(queue: RenderQueue):
    render = await put(queue, "a")
    await begin(queue)
    assert await queue.stop("a") is render
    assert render.stop_requested.is_set()
    assert render.state == "running"
    with pytest.raises(RenderStopping):
        await put(queue, "a")
    await queue.finish(render, "canceled")
    assert render.state == "canceled"
    assert (await submit(queue, "a"))[1]


async def test_removing_an_ended_render_leaves_no_file_and_frees_the_id(queue: RenderQueue, tmp_path: Path):
    render = await put(queue, "a")
    await begin(queue)
    await complete(queue, render)
    assert await queue.stop("a") is None
    assert files(tmp_path) == {}
    with pytest.raises(RenderNotFound):
        await queue.stop("a")
    assert (await put(queue, "a", "another body")).state == "queued"


async def test_stopping_and_finishing_at_once_ends_the_render_once(queue: RenderQueue):
    render = await put(queue, "a")
    await begin(queue)
    queue.store.video_path("a").write_bytes(b"mp4")
    await asyncio.gather(queue.finish(render, "completed"), queue.stop("a"))
    assert render.state == "completed"
    assert not render.stop_requested.is_set()


@pytest.mark.parametrize("state", ["failed", "canceled"])
async def test_a_failed_or_canceled_render_put_again_is_rendered_again(queue: RenderQueue, state):
    render = await put(queue, "a")
    await begin(queue)
    error = Problem(status=500, code="render_failed", title="t", detail="d") if state == "failed" else None
    await queue.finish(render, state, error=error)
    again, created = await submit(queue, "a")
    assert (again, created, again.state, again.record.status.error) == (render, True, "queued", None)
    with pytest.raises(RenderConflict):
        await put(queue, "a", "zoom out")


async def test_an_unfinished_render_leaves_no_output(queue: RenderQueue):
    render = await put(queue, "a")
    await begin(queue)
    queue.store.video_path("a").with_suffix(".part").write_bytes(b"half")
    await queue.finish(render, "failed")
    assert names(queue.store.folder / "a") == {"request.json", "status.json"}


async def test_a_restart_finds_the_finished_and_queues_the_others_in_their_order(queue: RenderQueue, tmp_path: Path):
    for name in "abcd":
        await put(queue, name)
        if name == "a":
            await complete(queue, await begin(queue))
    await begin(queue)  # b is running when the service dies
    reborn = make_queue(tmp_path)
    await reborn.open()
    assert reborn.find("a").state == "completed"
    assert reborn.store.video_path("a").read_bytes() == b"mp4"
    assert [(await begin(reborn)).id for _ in "bcd"] == ["b", "c", "d"]
    assert not (await submit(reborn, "a"))[1]


async def test_a_render_that_keeps_taking_the_service_down_is_given_up(queue: RenderQueue, tmp_path: Path):
    await put(queue, "a")
    for _ in range(MAX_ATTEMPTS):
        await begin(queue)
        queue = make_queue(tmp_path)
        await queue.open()
    render = queue.find("a")
    assert render.state == "failed"
    assert render.record.status.error is not None
    assert render.record.status.error.code == "interrupted"


async def test_an_orderly_stop_is_no_attempt(queue: RenderQueue, tmp_path: Path):
    await put(queue, "a")
    for _ in range(MAX_ATTEMPTS + 1):
        await begin(queue)
        await queue.close()
        queue = make_queue(tmp_path)
        await queue.open()
    assert queue.find("a").state == "queued"


async def test_a_cancellation_outlives_the_service(queue: RenderQueue, tmp_path: Path):
    await put(queue, "a")
    await begin(queue)
    await queue.stop("a")
    reborn = make_queue(tmp_path)
    await reborn.open()
    assert reborn.find("a").state == "canceled"


async def test_a_completed_render_whose_file_is_lost_says_so_and_can_be_rendered_again(
    queue: RenderQueue, tmp_path: Path
):
    await put(queue, "a")
    await complete(queue, await begin(queue))
    queue.store.video_path("a").unlink()
    reborn = make_queue(tmp_path)
    await reborn.open()
    error = reborn.find("a").record.status.error
    assert error is not None
    assert error.code == "file_lost"
    assert (await submit(reborn, "a"))[1]


async def test_only_so_many_ended_renders_are_kept_and_the_oldest_go_first(tmp_path: Path):
    queue = make_queue(tmp_path, max_finished=2)
    for name in "abcd":
        await put(queue, name)
        await complete(queue, await begin(queue))
    waiting = await put(queue, "e")
    await queue.purge()
    assert names(tmp_path) == {"c", "d", "e"}
    assert queue.find("e") is waiting


async def test_ended_renders_are_kept_only_so_long(tmp_path: Path):
    queue = make_queue(tmp_path, keep_s=0.01)
    await put(queue, "a")
    await complete(queue, await begin(queue))
    await put(queue, "b")
    await asyncio.sleep(0.02)
    await queue.purge()
    assert names(tmp_path) == {"b"}


async def test_what_waits_for_a_model_that_never_loads_is_failed_with_the_reason(queue: RenderQueue):
    renders = [await put(queue, name) for name in "ab"]
    await queue.fail_waiting(Problem(status=503, code="model_unavailable", title="t", detail="no weights"))
    assert [render.state for render in renders] == ["failed", "failed"]
    assert await queue.next() is None
