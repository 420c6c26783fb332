"""The cache: bounded, shared by equal calls at one time, and on disk whole or not at all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vl_service.qwen.vision.cache import ByteCache
from vl_service.qwen.vision.disk import DiskCache


def cache(max_bytes: int, second: DiskCache | None = None) -> ByteCache[bytes]:
    return ByteCache[bytes](max_bytes=max_bytes, size_of=len, second=second)


def never() -> bytes:
    raise AssertionError("it was kept")


def test_the_least_recently_used_leave_when_the_bytes_are_full() -> None:
    kept = cache(100)
    for key in "abc":
        assert kept.get(key, lambda key=key: key.encode() * 30) == (key.encode() * 30, "miss")
    assert kept.get("a", never)[1] == "memory"
    assert kept.get("d", lambda: b"d" * 40)[1] == "miss"  # b leaves, for a was used
    assert kept.num_bytes == 100
    assert [kept.get(key, never)[1] for key in "acd"] == ["memory"] * 3
    assert kept.get("b", lambda: b"b" * 101)[1] == "miss"  # more than there is room for: kept nowhere
    assert kept.get("b", lambda: b"b")[1] == "miss"
    assert kept.num_bytes <= 100


@pytest.mark.parametrize("max_bytes", [100, 0])
def test_ten_equal_calls_at_one_time_look_once_and_others_are_not_held_up(max_bytes: int) -> None:
    kept, looks, go = cache(max_bytes), [], threading.Event()

    def look() -> bytes:
        looks.append(1)
        assert go.wait(20)
        return b"seen"

    with ThreadPoolExecutor(11) as pool:
        calls = [pool.submit(kept.get, "a", look) for _ in range(10)]
        assert pool.submit(kept.get, "b", lambda: b"other").result(20) == (b"other", "miss")
        while not looks:
            time.sleep(0.001)
        time.sleep(0.05)
        go.set()
        answers = [call.result(20) for call in calls]
    assert len(looks) == 1
    assert [value for value, _ in answers] == [b"seen"] * 10
    assert sorted(found for _, found in answers) == ["memory"] * 9 + ["miss"]


def test_a_failed_look_is_told_to_all_who_waited_and_is_not_kept() -> None:
    kept, go = cache(100), threading.Event()

    def fail() -> bytes:
        assert go.wait(20)
        raise OSError("away")

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(kept.get, "a", fail) for _ in range(3)]
        time.sleep(0.05)
        go.set()
        assert [str(call.exception(20)) for call in calls] == ["away"] * 3
    assert kept.get("a", lambda: b"back") == (b"back", "miss")


def test_what_was_seen_outlives_the_process_on_disk(tmp_path: Path) -> None:
    assert cache(100, DiskCache(tmp_path / "new", 1000)).get("a", lambda: b"seen")[1] == "miss"
    later = cache(100, DiskCache(tmp_path / "new", 1000))
    assert later.get("a", never) == (b"seen", "disk")
    assert later.get("a", never) == (b"seen", "memory")


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _turned(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut, _turned, _emptied])
def test_a_damaged_file_is_looked_at_anew_and_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    disk = DiskCache(tmp_path, 1000)
    disk.put("a", b"seen")
    [file] = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert cache(100, disk).get("a", lambda: b"anew") == (b"anew", "miss")
    assert disk.get("a") == b"anew"


def test_the_folder_stays_within_its_bytes_and_the_last_used_stay(tmp_path: Path) -> None:
    (tmp_path / "left.part").write_bytes(b"x" * 500)  # of a process that was killed
    (tmp_path / "not ours").write_bytes(b"x" * 5000)
    disk = DiskCache(tmp_path, 450)
    for key in "abc":
        disk.put(key, key.encode() * 100)
        time.sleep(0.01)
    assert disk.get("a") is not None
    time.sleep(0.01)
    disk.put("d", b"d" * 100)
    assert {key for key in "abcd" if disk.get(key)} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.features")) <= 450
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "not ours").exists()
    disk.put("e", b"e" * 1000)  # more than the folder may hold
    assert disk.get("a") is not None


def test_a_disk_that_refuses_costs_the_cache_and_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    kept = cache(100, DiskCache(tmp_path / "file" / "below", 1000))
    assert kept.get("a", lambda: b"seen") == (b"seen", "miss")
    assert "cannot be written" in caplog.text
