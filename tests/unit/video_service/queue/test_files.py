"""Laws of the renders' files."""

from pathlib import Path

import pytest

from video_service.queue.files import FolderInUse, RenderFiles, output_path


def test_files_of_an_earlier_process_are_removed_at_the_start_and_the_folder_is_usable(tmp_path: Path):
    for name in ("a-1/video.mp4", "a-1/.video.mp4.7.part", "b/status.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with RenderFiles(tmp_path).held():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_no_two_renders_share_a_folder_and_one_discarded_takes_no_other_along(tmp_path: Path):
    files = RenderFiles(tmp_path)
    first, second = files.new_folder("a"), files.new_folder("a")
    for folder in (first, second):
        folder.mkdir()
        output_path(folder, "video").write_bytes(b"mp4")
    files.discard(first)
    files.discard(first)
    files.settle()
    assert [path.name for path in tmp_path.iterdir()] == [second.name]


def test_two_processes_cannot_hold_one_folder(tmp_path: Path):
    with RenderFiles(tmp_path).held(), pytest.raises(FolderInUse, match="STILLMOTION_DATA"), RenderFiles(
        tmp_path
    ).held():
        pass
    with RenderFiles(tmp_path).held():
        pass
