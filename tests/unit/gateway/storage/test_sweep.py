"""Laws of the sweep: nothing foreign is touched, nothing unknown is lost, a wrong database removes nothing."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gateway.storage.sweep
from gateway.settings import GatewaySettings
from gateway.storage.bucket import BucketFiles, open_bucket
from gateway.storage.files import TRASH, LocalFiles
from gateway.storage.sweep import Known, Sweeper
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.storage.conftest import BUCKET, Bucket, in_bucket

FOREIGN = (
    "photos/cat.jpg", "backups/2026/db.dump", "job_1/video.mp4", "job_notes/video.mp4", "file_server/a.png",
    f"job_{'A' * 24}/video.mp4", f"job_{'a' * 25}/video.mp4", f"job_{'a' * 24}", f"job_{'b' * 24}/notes.txt",
    f"job_{'b' * 24}/deeper/video.mp4", f"other-team/job_{'a' * 24}/video.mp4", "zzzz/last.bin", ".hidden",
    f"{TRASH}/notes.txt", f"{TRASH}/job_1/video.mp4", f"job_{'c' * 24}/video.mp4.tmp",
)
"""Objects of every kind that may lie beside ours."""


def job(number: int, kind: str = "job") -> str:
    return f"{kind}_{number:024x}"


@dataclass(kw_only=True)
class Place:
    """Where files lie, and what a database knows of them."""

    files: LocalFiles
    every: Callable[[], list[str]]
    put: Callable[[str], None]
    kept: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)

    def sweep(self, deployment: str = "dep_a") -> str | None:
        """Sweep once; why unknown files were left alone."""
        def let_go(asked: Collection[str]) -> set[str]:
            return self.expired & set(asked)

        sweeper = Sweeper(self.files, deployment, Known(kept=lambda: self.kept, let_go=let_go))
        sweeper.run(nobody_writes=lambda: True)
        return sweeper.refusal


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Files on a disk and in a bucket (where an hour's patience is taken away), with foreign ones among them."""
    if request.param == "disk":
        def put(name: str) -> None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")

        def every() -> list[str]:
            paths = [path for path in tmp_path.rglob("*") if path.is_file() and ".deployments" not in path.parts]
            return sorted(str(path.relative_to(tmp_path)) for path in paths)

        place = Place(files=LocalFiles(tmp_path), every=every, put=put)
    else:
        monkeypatch.setattr(gateway.storage.sweep, "_FORGOTTEN_AFTER_S", -1.0)
        bucket: Bucket = request.getfixturevalue("bucket")
        place = Place(files=opened(bucket, tmp_path), every=bucket.keys, put=bucket.put)
    for name in FOREIGN:
        if not (request.param == "disk" and name == f"job_{'a' * 24}"):  # a folder has this name there
            place.put(name)
    yield place
    assert set(FOREIGN) - set(place.every()) <= {f"job_{'a' * 24}"}, "something foreign is gone"


def opened(bucket: Bucket, root: Path) -> BucketFiles:
    return open_bucket(f"s3://{BUCKET}", root, endpoint=bucket.endpoint, region="us-east-1", key_id="k", secret="s")


def test_a_few_unknown_ones_lie_in_the_trash_for_a_day(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.kept = {job(1)}
    for number in (1, 2):
        place.files.write(job(number), "video.mp4", b"x")
        place.files.write(job(number), "input.png", b"x")
    assert place.sweep() is None
    assert place.files.stored().keys() == {job(1)}
    assert place.files.trashed().keys() == {job(2)}
    assert f"{TRASH}/{job(2)}/video.mp4" in place.every()
    assert place.sweep() is None
    assert place.files.trashed().keys() == {job(2)}, "not a day old"
    monkeypatch.setattr(gateway.storage.sweep, "TRASH_KEPT_S", -1.0)
    assert place.sweep() is None
    assert place.files.trashed() == {}
    assert place.files.stored().keys() == {job(1)}


def test_what_the_database_knows_again_comes_back_from_the_trash(place: Place) -> None:
    place.kept = {job(1)}
    for number in (1, 2):
        place.files.write(job(number), "video.mp4", b"x")
    place.sweep()
    place.kept |= {job(2)}
    assert place.sweep() is None
    assert (place.files.stored().keys(), place.files.trashed()) == ({job(1), job(2)}, {})


@pytest.mark.parametrize(
    ("kept", "unknown", "name", "kind", "touched"),
    [
        (8, 3, "video.mp4", "job", True), (8, 4, "video.mp4", "job", False), (0, 1, "video.mp4", "job", False),
        (8, 4, "picture.png", "file", False), (8, 10, "input.png", "job", True), (8, 11, "input.png", "job", False),
        (0, 10, "input.png", "job", True),
    ],
)
def test_more_than_a_few_at_once_are_left_where_they_are(
    place: Place, kept: int, unknown: int, name: str, kind: str, touched: bool
) -> None:
    place.kept = {job(number) for number in range(kept)}
    lost = {job(1000 + number, kind) for number in range(unknown)}
    for folder in place.kept:
        place.files.write(folder, "video.mp4", b"x")
    for folder in lost:
        place.files.write(folder, name, b"x")
    refusal = place.sweep()
    assert place.files.stored().keys() == place.kept | (set() if touched else lost)
    assert (refusal is None) is touched
    assert touched or f"does not know {unknown} of {kept + unknown} folders" in str(refusal)


def test_unknown_ones_are_no_more_than_a_few_within_a_day(place: Place) -> None:
    place.kept = {job(1)}
    place.files.write(job(1), "video.mp4", b"x")
    for number in (2, 3, 4):
        place.files.write(job(number), "video.mp4", b"x")
        assert place.sweep() is None
    place.files.write(job(5), "video.mp4", b"x")
    assert place.sweep() is not None
    assert place.files.stored().keys() == {job(1), job(5)}


def test_the_files_of_an_expired_job_are_no_riddle(place: Place) -> None:
    place.expired = {job(number) for number in range(20)}
    for folder in place.expired:
        place.files.write(folder, "video.mp4", b"x")
    assert place.sweep() is None
    assert (place.files.stored(), place.files.trashed()) == ({}, {})


def test_two_deployments_at_one_place_leave_each_other_alone(place: Place) -> None:
    place.kept = {job(1), job(2)}
    place.files.write(job(1), "video.mp4", b"of a")
    assert place.sweep("dep_a") is None
    place.files.write(job(2), "video.mp4", b"of b")
    for ours, theirs, deployment, other in ((1, 2, "dep_b", "dep_a"), (2, 1, "dep_a", "dep_b")):
        place.kept = {job(ours)}
        refusal = place.sweep(deployment)
        assert refusal is not None
        assert other in refusal
        assert job(theirs) in place.files.stored()
    assert (place.files.stored().keys(), place.files.trashed()) == ({job(1), job(2)}, {})


def test_in_a_bucket_nothing_young_is_touched(bucket: Bucket, tmp_path: Path) -> None:
    files = opened(bucket, tmp_path)
    sweeper = Sweeper(files, "dep_a", Known(kept=lambda: {job(1)}, let_go=lambda _: set()))
    files.write(job(1), "video.mp4", b"x")
    files.write(job(2), "input.png", b"x")
    sweeper.run(nobody_writes=lambda: True)
    assert (files.stored().keys(), files.trashed()) == ({job(1), job(2)}, {})


def test_unfinished_files_go_when_nobody_writes_them_any_more(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write(job(1), "input.png", b"x")
    parts = [tmp_path / job(1) / f"video.mp4.{n:08x}.part" for n in range(2)]
    for part in parts:
        part.write_bytes(b"half")
    long_ago = time.time() - 7200
    os.utime(parts[0], (long_ago, long_ago))
    os.utime(tmp_path / job(1), (long_ago, long_ago))
    sweeper = Sweeper(files, "dep_a", Known(kept=lambda: {job(1)}, let_go=lambda _: set()))
    sweeper.run(nobody_writes=lambda: False)
    assert [part.exists() for part in parts] == [False, True]
    sweeper.run(nobody_writes=lambda: True)
    assert [path.name for path in (tmp_path / job(1)).iterdir()] == ["input.png"]


# --- the whole gateway ----------------------------------------------------------------------------------------------


async def completed(settings: GatewaySettings, count: int) -> list[str]:
    """The ids of completed jobs."""
    async with open_client(settings) as client:
        answers = [await client.post("/generate", json={"prompt": "a kite"}) for _ in range(count)]
        for answer in answers:
            await until(client, answer.json()["id"], lambda job: job["state"] == "completed")
        return [answer.json()["id"] for answer in answers]


@pytest.mark.parametrize(("where", "lost"), [
    ("disk", "restored"), ("disk", "removed"), ("disk", "rows"), ("bucket", "removed"),
])
async def test_an_older_an_empty_and_a_new_database_remove_no_video_and_say_so(
    tmp_path: Path, services: Services, where: str, lost: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.storage.sweep, "_FORGOTTEN_AFTER_S", -1.0)
    more: dict[str, Any] = in_bucket(bucket) if where == "bucket" else {}
    settings = gateway_settings(tmp_path / "data", services, **more)
    database = settings.jobs_database_file
    jobs = await completed(settings, 1)
    shutil.copy(database, tmp_path / "backup")
    jobs += await completed(settings, 4)
    if lost == "restored":
        shutil.copy(tmp_path / "backup", database)
    elif lost == "removed":
        database.unlink()
    else:
        connection = sqlite3.connect(database)
        connection.execute("DELETE FROM jobs")
        connection.commit()
        connection.close()
    async with open_client(settings) as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 200, "jobs are served all the same"
        said = ready.json()["details"]["gateway.files"]
        assert ("the same place" if lost == "removed" else "does not know") in said
    if where == "bucket":
        held = {key.split("/")[1] for key in bucket.keys() if key.endswith("/video.mp4")}  # noqa: SIM118
    else:
        held = {path.parent.name for path in (settings.state_dir / "files").glob("*/video.mp4")}
    assert held == set(jobs)
