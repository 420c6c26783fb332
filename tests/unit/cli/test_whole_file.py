"""A file appears complete or not at all."""

from pathlib import Path

import pytest

from gateway.cli.whole_file import whole_file


def write_half(path: Path) -> None:
    with whole_file(path) as stream:
        stream.write(b"half of the new")
        raise ConnectionError


def test_a_file_whose_writing_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out" / "video.mp4"
    with whole_file(path) as stream:
        stream.write(b"old")
    with pytest.raises(ConnectionError):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert [found.name for found in path.parent.iterdir()] == ["video.mp4"]


def test_the_name_appears_only_at_the_end_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with whole_file(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.stat().st_mode & 0o777 == 0o644
