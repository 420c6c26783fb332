"""Files on disk: whole or not there."""

import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.database.database import Database
from gateway.jobs.store import JobStore
from gateway.storage.files import ChecksumMismatch, LocalFiles
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.jobs.test_store import new_job
from tests.unit.gateway.model_services import Services


async def pieces(*chunks: bytes, breaks: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if breaks:
        raise ConnectionError("gone")


async def test_a_received_file_is_what_was_sent(tmp_path: Path) -> None:
    stored = await LocalFiles(tmp_path).receive("job", "video.mp4", pieces(b"ab", b"cd"))
    assert stored.path.read_bytes() == b"abcd"
    assert stored.num_bytes == 4
    assert stored.sha256 == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"


async def test_a_stream_that_breaks_off_leaves_what_was_there_before(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    with pytest.raises(ConnectionError):
        await files.receive("job", "video.mp4", pieces(b"ab", breaks=True))
    assert list((tmp_path / "job").iterdir()) == []
    files.write("job", "video.mp4", b"whole")
    with pytest.raises(ConnectionError):
        await files.receive("job", "video.mp4", pieces(b"ab", breaks=True))
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["video.mp4"]
    assert files.path("job", "video.mp4").read_bytes() == b"whole"


async def test_a_stream_with_another_checksum_leaves_what_was_there_before(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    whole = files.write("job", "video.mp4", b"whole")
    with pytest.raises(ChecksumMismatch):
        await files.receive("job", "video.mp4", pieces(b"dam", b"aged"), whole.sha256)
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["video.mp4"]
    assert files.path("job", "video.mp4").read_bytes() == b"whole"
    assert await files.receive("job", "video.mp4", pieces(b"who", b"le"), whole.sha256) == whole


async def test_a_start_takes_up_what_a_crash_left_at_the_door_and_sweeps_the_rest(
    tmp_path: Path, services: Services
) -> None:
    # A process that died between storing a job and submitting it, one that died before storing it, one in mid-write.
    database = Database(gateway_settings(tmp_path, services).jobs_database_url)
    stored, never_stored = JobStore(database).add(new_job("job_" + "1" * 24), 10), "job_" + "2" * 24
    database.close()
    files = LocalFiles(tmp_path / "gateway" / "files")
    files.write(never_stored, "input.png", b"x")
    files.write(stored.id, "input.png", b"x")
    (files.root / stored.id / "video.mp4.0123abcd.part").write_bytes(b"half")
    async with open_client(gateway_settings(tmp_path, services)) as client:
        done = await until(client, stored.id, lambda job: job["state"] == "completed")
        assert done["actual_prompt"] == "a kite"
    assert left_behind(tmp_path) == [
        stored.id,
        *(f"{stored.id}/{name}" for name in (
            "input.png", "last_frame.png", "spritesheet.jpg", "thumbnail.jpg", "video.mp4")),
    ]
    assert files.trashed().keys() == {never_stored}


async def test_a_job_that_the_engine_gave_up_is_begun_again_and_completes(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    from dbos import DBOS

    services.script.describe_delay_s = 1
    settings = gateway_settings(tmp_path, services)
    async with open_client(settings) as client:
        job = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        await until(client, job["id"], lambda job: job["state"] == "running")
        await DBOS.cancel_workflow_async(job["id"])  # behind the jobs table's back
    async with open_client(settings) as client:
        ended = await until(client, job["id"], lambda job: job["state"] not in ("queued", "running"))
        assert (ended["state"], ended["error"]) == ("completed", None)


async def test_what_is_stored_is_its_owners_alone_whatever_the_process_and_an_older_one_left_open(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    settings = gateway_settings(tmp_path, services, reserve_bytes=4096)
    before = os.umask(0o022)
    try:
        (settings.state_dir / "files").mkdir(parents=True)
        for name in ("jobs", "dbos"):
            (settings.state_dir / f"{name}.sqlite").touch()
        async with open_client(settings) as client:
            answer = await client.post("/generate", files={"image": ("a.png", picture())})
            await until(client, answer.json()["id"], lambda job: job["state"] == "completed")
            await client.post("/v1/files", files={"file": ("a.png", picture())})
            paths = [settings.state_dir, *settings.state_dir.rglob("*")]
            modes = {path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in paths}
            folders = {path.relative_to(tmp_path).as_posix() for path in paths if path.is_dir()}
    finally:
        os.umask(before)
    assert {name for name in modes if "sqlite" in name} == {
        f"gateway/{name}.sqlite{part}" for name in ("jobs", "dbos") for part in ("", "-wal", "-shm")
    }
    assert any(name.endswith("video.mp4") for name in modes)
    assert any(name.endswith("picture.png") for name in modes)
    open_to_others = {name for name, mode in modes.items() if mode != (0o700 if name in folders else 0o600)}
    assert open_to_others <= {"gateway/gateway-1.lock"}, "which holds nothing"
