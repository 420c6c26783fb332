"""Laws of artifacts in a bucket: what is in it is whole, any gateway serves it, nothing of a removed job stays."""

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import S3Store

import gateway.storage.bucket
from gateway.storage.bucket import BucketFiles, open_bucket
from gateway.storage.files import LocalFiles, StoreBusy
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services, video_bytes
from tests.unit.gateway.storage.conftest import BUCKET, Bucket, in_bucket


def opened(bucket: Bucket, root: Path) -> BucketFiles:
    return open_bucket(
        f"s3://{BUCKET}/videos", root, endpoint=bucket.endpoint, region="us-east-1", key_id="k", secret="s"
    )


def on_disk(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_what_is_written_lies_in_the_bucket_with_its_checksum(bucket: Bucket, tmp_path: Path) -> None:
    files = opened(bucket, tmp_path)
    written = files.write("job_1", "input.png", b"picture")
    received = await files.receive("job_1", "video.mp4", pieces(b"one", b"two"))
    assert bucket.keys() == ["videos/job_1/input.png", "videos/job_1/video.mp4"]
    assert bucket.data("videos/job_1/video.mp4") == b"onetwo"
    assert (written.sha256, received.sha256) == tuple(hashlib.sha256(d).hexdigest() for d in (b"picture", b"onetwo"))
    assert received.num_bytes == 6


async def test_a_stream_that_breaks_off_leaves_nothing_anywhere(bucket: Bucket, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx.ReadError("gone")

    files = opened(bucket, tmp_path)
    with pytest.raises(httpx.ReadError):
        await files.receive("job_1", "video.mp4", broken())
    assert bucket.keys() == []
    assert on_disk(tmp_path) == []


def test_a_bucket_that_refuses_leaves_no_copy_that_seems_stored(bucket: Bucket, tmp_path: Path) -> None:
    files = open_bucket(
        "s3://nowhere", tmp_path, endpoint=bucket.endpoint, region="us-east-1", key_id="k", secret="s"
    )
    with pytest.raises(StoreBusy):
        files.write("job_1", "input.png", b"picture")
    assert not files.path("job_1", "input.png").exists()


def test_a_bucket_that_does_not_answer_is_busy_whatever_is_asked_of_it(tmp_path: Path) -> None:
    files = open_bucket("s3://b", tmp_path, endpoint="http://127.0.0.1:9", region="us-east-1", key_id="k", secret="s")
    files._store = S3Store(  # without the client's patience of minutes
        "b", config={"endpoint": "http://127.0.0.1:9", "region": "us-east-1", "access_key_id": "k",
                     "secret_access_key": "s"},
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )
    for call in (
        lambda: files.write("job_1", "input.png", b"x"), lambda: files.bring(files.path("job_1", "video.mp4")),
        lambda: files.remove("job_1", "video.mp4"), lambda: files.remove_job("job_1"),
    ):
        with pytest.raises(StoreBusy):
            call()


def test_another_gateway_brings_a_file_to_its_own_disk(bucket: Bucket, tmp_path: Path) -> None:
    opened(bucket, tmp_path / "one").write("job_1", "video.mp4", b"frames")
    other = opened(bucket, tmp_path / "two")
    path = other.path("job_1", "video.mp4")
    other.bring(path)
    assert path.read_bytes() == b"frames"
    missing = other.path("job_2", "video.mp4")
    other.bring(missing)
    assert not missing.exists()


def test_removing_reaches_the_bucket_and_spares_the_neighbours(bucket: Bucket, tmp_path: Path) -> None:
    files = opened(bucket, tmp_path)
    for job_id in ("job_1", "job_12"):
        for name in ("input.png", "video.mp4"):
            files.write(job_id, name, b"x")
    files.remove("job_1", "video.mp4")
    assert "videos/job_1/video.mp4" not in bucket.keys()  # noqa: SIM118 - a method of ours, not of a dict
    files.remove_job("job_1")
    assert bucket.keys() == ["videos/job_12/input.png", "videos/job_12/video.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job_12"]


def test_a_copy_that_nobody_uses_goes_unless_it_is_no_copy(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = opened(bucket, tmp_path)
    stored, only_here = "job_" + "1" * 24, "job_" + "2" * 24
    files.write(stored, "video.mp4", b"x")
    LocalFiles(tmp_path).write(only_here, "video.mp4", b"from before there was a bucket")
    files.stored()
    files.drop_copies()
    assert files.path(stored, "video.mp4").exists(), "too young"
    monkeypatch.setattr(gateway.storage.bucket, "_COPY_KEPT_S", -1.0)
    files.drop_copies()
    assert not files.path(stored, "video.mp4").exists()
    assert bucket.keys() == [f"videos/{stored}/video.mp4"], "the copy went, the file stays"
    assert files.path(only_here, "video.mp4").exists()


async def test_a_job_is_kept_in_the_bucket_served_without_its_copy_and_removed_from_it(
    bucket: Bucket, tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    settings = gateway_settings(tmp_path, services, **in_bucket(bucket))
    async with open_client(settings) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        job = await until(client, answer.json()["id"], lambda job: job["state"] == "completed")
        assert f"videos/{job['id']}/video.mp4" in bucket.keys()  # noqa: SIM118
        for path in (tmp_path / "gateway" / "files" / job["id"]).iterdir():
            path.unlink()  # as on another machine
        served = await client.get(job["urls"]["content"], headers={"Range": "bytes=10-19"})
        assert (served.status_code, served.content) == (206, video_bytes(job["id"])[10:20])
        assert (await client.get(job["urls"]["content"])).headers["ETag"] == f'"{job["video"]["sha256"]}"'
        assert (await client.delete(job["urls"]["self"])).status_code == 204
    assert bucket.keys() == []
    assert left_behind(tmp_path) == []


async def test_a_bucket_that_does_not_take_our_files_makes_the_gateway_unready(
    bucket: Bucket, tmp_path: Path, services: Services
) -> None:
    async with open_client(gateway_settings(tmp_path / "well", services, **in_bucket(bucket))) as client:
        assert (await client.get("/readyz")).json()["ready"] is True
    missing = in_bucket(bucket, artifacts_url="s3://nobody-made-this-one/videos")
    async with open_client(gateway_settings(tmp_path / "ill", services, **missing)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        [reason] = answer.json()["reasons"]
        assert "the bucket cannot be used" in reason


def test_the_client_of_the_bucket_is_the_real_one(bucket: Bucket, tmp_path: Path) -> None:
    files = opened(bucket, tmp_path)
    files.write("job_1", "a.bin", bytes(12 * 2**20))  # more than one part of a multipart upload
    assert obstore.head(files._store, "job_1/a.bin")["size"] == 12 * 2**20
    assert hashlib.sha256(bucket.data("videos/job_1/a.bin")).digest() == hashlib.sha256(bytes(12 * 2**20)).digest()
