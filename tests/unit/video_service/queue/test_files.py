"""Laws of the renders on disk."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.videos import RenderState, RenderStatus
from video_service.queue.files import FolderInUse, RenderStore
from video_service.queue.render import RenderRecord


def record(render_id: str, state: RenderState = "queued", year: int = 2026) -> RenderRecord:
    return RenderRecord(
        status=RenderStatus(id=render_id, state=state), digest="d", voxels=1, passes=1,
        created_at=datetime(year, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def store(tmp_path: Path) -> RenderStore:
    return RenderStore(tmp_path / "video")


def test_what_was_written_is_found_again_oldest_first(store: RenderStore):
    records = [record("new", year=2026), record("old", year=2025)]
    for one in records:
        store.create(one, b"{}")
    assert store.load() == records[::-1]
    assert store.request_path("new").read_bytes() == b"{}"


def test_a_render_without_a_status_was_never_accepted_and_is_cleared_away(store: RenderStore):
    store.create(record("whole"), b"{}")
    (store.folder / "half").mkdir()
    (store.folder / "half" / "request.json").write_bytes(b"{}")
    assert [one.status.id for one in store.load()] == ["whole"]
    assert not (store.folder / "half").exists()


def test_temporary_files_and_an_unfinished_video_are_cleared_away(store: RenderStore):
    store.create(record("running", "running"), b"{}")
    store.create(record("completed", "completed"), b"{}")
    for render_id in ("running", "completed"):
        for name in ("video.mp4", "status.json.tmp", "video.mp4.part"):
            (store.folder / render_id / name).write_bytes(b"x")
    store.load()
    left = {path.relative_to(store.folder).as_posix() for path in store.folder.glob("*/*")}
    assert left == {
        "running/request.json", "running/status.json",
        "completed/request.json", "completed/status.json", "completed/video.mp4",
    }


def test_an_unreadable_status_is_left_alone_and_hides_no_other(store: RenderStore):
    store.create(record("good"), b"{}")
    store.create(record("bad"), b"{}")
    (store.folder / "bad" / "status.json").write_text("not json")
    assert [one.status.id for one in store.load()] == ["good"]
    assert (store.folder / "bad" / "status.json").exists()


def test_folders_that_are_no_renders_are_not_touched(store: RenderStore):
    foreign = store.folder / "lost+found.d"
    foreign.mkdir(parents=True)
    assert store.load() == []
    assert foreign.exists()


def test_a_removed_render_leaves_nothing(store: RenderStore):
    store.create(record("r"), b"{}")
    store.remove("r")
    store.remove("r")
    assert list(store.folder.iterdir()) == []


def test_two_processes_cannot_hold_one_folder(store: RenderStore):
    with store.held(), pytest.raises(FolderInUse, match="STILLMOTION_DATA"), RenderStore(store.folder).held():
        pass
    with RenderStore(store.folder).held():
        pass
