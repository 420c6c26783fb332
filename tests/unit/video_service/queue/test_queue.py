"""Laws of admission, order, cancellation, and of what is kept."""

import asyncio
from pathlib import Path

import pytest

from contracts.errors import Problem
from contracts.models import FloatRange, FrameRange, IntRange, VideoModelInfo
from contracts.videos import RenderResult, VideoRequest
from video_service.queue.files import RenderFiles, output_path
from video_service.queue.queue import Limits, RenderQueue
from video_service.queue.render import (
    QueueFull,
    Render,
    RenderConflict,
    RenderNotFound,
    RenderStopping,
    Submission,
)

INFO = VideoModelInfo(
    id="m", revision="r", engine="e", dtype="float32", profile="p", tasks=["t2v"], sizes=["64x64"], size_multiple=16,
    min_side=64, max_pixels=64 * 64, num_frames=FrameRange(step=4, minimum=1, maximum=9, default=9),
    fps=IntRange(minimum=1, maximum=60, default=16), steps=IntRange(minimum=1, maximum=50, default=4),
    guidance_scale=FloatRange(minimum=1, maximum=9, default=1), samplers=["euler"],
)
BROKEN = Problem(status=500, code="render_failed", title="t", detail="d")
VIDEO = b"mp4"
RESULT = RenderResult(
    width=64, height=64, num_frames=9, fps=16, steps=4, sampler="euler", guidance_scale=1, seed=1, model="m",
    revision="r", engine="e", dtype="float32", num_bytes=len(VIDEO), sha256="0" * 64, timings={"total": 1.0},
)


def words(prompt: str = "zoom in") -> VideoRequest:
    return VideoRequest(prompt=prompt, width=64, height=64, num_frames=9, fps=16, seed=1)


def make_queue(
    folder: Path, *, max_waiting: int = 3, max_finished: int = 10, keep_s: float = 60.0, max_bytes: int = 1 << 20
) -> RenderQueue:
    return RenderQueue(RenderFiles(folder), Limits(
        max_waiting=max_waiting, keep_finished_s=keep_s, max_finished=max_finished, max_finished_bytes=max_bytes,
    ))


@pytest.fixture
def queue(tmp_path: Path) -> RenderQueue:
    return make_queue(tmp_path)


def submit(queue: RenderQueue, render_id: str, prompt: str = "zoom in") -> tuple[Render, bool]:
    return queue.put(Submission.of(render_id, words(prompt)), INFO)


def put(queue: RenderQueue, render_id: str, prompt: str = "zoom in") -> Render:
    return submit(queue, render_id, prompt)[0]


def begin(queue: RenderQueue) -> Render:
    (render,) = queue.start_next()
    return render


def complete(queue: RenderQueue, render: Render) -> None:
    render.folder.mkdir()
    output_path(render.folder, "video").write_bytes(VIDEO)
    queue.complete(render, RESULT)


def names(queue: RenderQueue, folder: Path) -> set[str]:
    """The ids whose files are there."""
    queue._files.settle()
    return {path.name.rpartition("-")[0] for path in folder.iterdir()}


def test_the_same_id_and_request_is_one_render_in_every_living_state(queue: RenderQueue):
    render, created = submit(queue, "a")
    assert created
    assert submit(queue, "a") == (render, False)
    begin(queue)
    assert submit(queue, "a") == (render, False)
    complete(queue, render)
    assert submit(queue, "a") == (render, False)
    assert queue.start_next() == []


def test_the_same_id_with_another_request_is_refused_in_every_state(queue: RenderQueue):
    def refuses() -> None:
        with pytest.raises(RenderConflict):
            put(queue, "a", "zoom out")

    render = put(queue, "a")
    refuses()
    begin(queue)
    refuses()
    complete(queue, render)
    refuses()
    assert render.state == "completed"


def test_a_full_queue_refuses_new_renders_only(queue: RenderQueue):
    for name in "abcd":
        put(queue, name)
        if name == "a":
            begin(queue)
    with pytest.raises(QueueFull) as refusal:
        put(queue, "e")
    assert (refusal.value.retry_after_s or 0) >= 1
    with pytest.raises(RenderNotFound):
        queue.find("e")
    assert put(queue, "b").state == "queued"  # attaching needs no place


def test_renders_go_in_order_and_each_knows_how_many_are_before_it(queue: RenderQueue):
    renders = [put(queue, name) for name in "abc"]
    assert [render.status.queue_position for render in renders] == [0, 1, 2]
    assert begin(queue) is renders[0]
    assert [render.status.queue_position for render in renders] == [None, 1, 2]
    complete(queue, renders[0])
    assert [render.status.queue_position for render in renders] == [None, 0, 1]
    assert begin(queue) is renders[1]


def test_canceling_a_queued_render_ends_it_at_once_and_moves_the_others_up(queue: RenderQueue):
    a, b = put(queue, "a"), put(queue, "b")
    assert queue.stop("a") is a
    assert (a.state, b.status.queue_position) == ("canceled", 0)
    assert begin(queue) is b


def test_canceling_a_running_render_asks_and_waits_for_its_end(queue: RenderQueue):
    render = put(queue, "a")
    begin(queue)
    assert queue.stop("a") is render
    assert (render.stop_requested.is_set(), render.state) == (True, "running")
    with pytest.raises(RenderStopping):
        put(queue, "a")
    queue.fail(render, None)
    assert render.state == "canceled"
    assert submit(queue, "a")[1]


def test_a_render_that_was_done_before_its_cancellation_is_done(queue: RenderQueue):
    render = put(queue, "a")
    begin(queue)
    queue.stop("a")
    complete(queue, render)
    assert submit(queue, "a") == (render, False)


def test_removing_an_ended_render_leaves_no_file_and_frees_the_id(queue: RenderQueue, tmp_path: Path):
    render = put(queue, "a")
    begin(queue)
    complete(queue, render)
    assert queue.stop("a") is None
    assert names(queue, tmp_path) == set()
    with pytest.raises(RenderNotFound):
        queue.stop("a")
    assert put(queue, "a", "another request").state == "queued"


@pytest.mark.parametrize("error", [BROKEN, None], ids=["failed", "canceled"])
def test_a_failed_or_canceled_render_put_again_is_rendered_again(queue: RenderQueue, error: Problem | None):
    render = put(queue, "a")
    begin(queue)
    queue.fail(render, error)
    with pytest.raises(RenderConflict):
        put(queue, "a", "zoom out")
    again, created = submit(queue, "a")
    assert (created, again.state, again.status.error) == (True, "queued", None)
    assert queue.find("a") is again


def test_a_render_without_an_end_in_a_video_leaves_no_output(queue: RenderQueue, tmp_path: Path):
    render = put(queue, "a")
    begin(queue)
    render.folder.mkdir()
    output_path(render.folder, "video").with_suffix(".part").write_bytes(b"half")
    queue.fail(render, BROKEN)
    assert names(queue, tmp_path) == set()


def test_a_render_that_was_not_begun_waits_again_before_the_others(queue: RenderQueue):
    a, b = put(queue, "a"), put(queue, "b")
    begin(queue)
    queue.put_back(a)
    assert (a.status.queue_position, b.status.queue_position) == (0, 1)
    assert begin(queue) is a


def test_a_render_that_was_not_begun_and_is_not_wanted_any_more_is_canceled(queue: RenderQueue):
    render = put(queue, "a")
    begin(queue)
    queue.stop("a")
    queue.put_back(render)
    assert (render.state, queue.start_next()) == ("canceled", [])


async def test_what_cannot_be_rendered_here_is_not_known_here_any_more(queue: RenderQueue):
    running = put(queue, "a")
    begin(queue)
    waiting = put(queue, "b")
    following = asyncio.create_task(_last_of(waiting))
    await asyncio.sleep(0)
    queue.drop_waiting()
    assert (await following, running.state) == ("queued", "running")
    with pytest.raises(RenderNotFound):
        queue.find("b")


async def _last_of(render: Render) -> str:
    return [status.state async for _, status in render.history.follow()][-1]


@pytest.mark.parametrize("limits", [{"max_finished": 2}, {"max_bytes": 2 * len(VIDEO)}], ids=["count", "bytes"])
def test_only_so_much_of_what_ended_is_kept_and_the_oldest_goes_first(limits: dict[str, int], tmp_path: Path):
    queue = make_queue(tmp_path, **limits)
    for name in "abcd":
        put(queue, name)
        complete(queue, begin(queue))
    waiting = put(queue, "e")
    queue.purge()
    assert names(queue, tmp_path) == {"c", "d"}
    assert queue.find("e") is waiting


def test_the_newest_video_is_kept_however_large(tmp_path: Path):
    queue = make_queue(tmp_path, max_bytes=1)
    put(queue, "a")
    complete(queue, begin(queue))
    queue.purge()
    assert names(queue, tmp_path) == {"a"}


async def test_what_ended_is_kept_only_so_long(tmp_path: Path):
    queue = make_queue(tmp_path, keep_s=0.01)
    put(queue, "a")
    complete(queue, begin(queue))
    await asyncio.sleep(0.02)
    queue.purge()
    assert names(queue, tmp_path) == set()
    with pytest.raises(RenderNotFound):
        queue.find("a")


def test_a_digest_says_what_is_asked_for_and_not_what_may_be_asked_for():
    """A version that knows one optional field more still finds the renders that it has in flight."""
    class LaterRequest(VideoRequest):
        new_field: str | None = None

    now, later = words(), LaterRequest.model_validate(words().model_dump())
    assert Submission.of("a", later).digest == Submission.of("a", now).digest
    asked = later.model_copy(update={"new_field": "value"})
    assert Submission.of("a", asked).digest != Submission.of("a", now).digest
    said = VideoRequest.model_validate(words().model_dump(exclude_defaults=True) | {"negative_prompt": ""})
    assert Submission.of("a", said).digest == Submission.of("a", now).digest
