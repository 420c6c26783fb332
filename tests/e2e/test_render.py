"""A picture goes in, a video comes out, through three real processes."""

import io
from pathlib import Path

import av
import pytest

from tests.e2e.conftest import Gateway

pytestmark = pytest.mark.slow


def decode(mp4: bytes) -> tuple[int, int, int, float]:
    """(frames, width, height, frames per second) as a decoder sees them."""
    with av.open(io.BytesIO(mp4), "r") as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        return frames, stream.width, stream.height, float(stream.average_rate or 0)


def media_data(mp4: bytes) -> bytes:
    """The encoded frames: what follows in the box `mdat`."""
    at = mp4.index(b"mdat")
    return mp4[at:at - 4 + int.from_bytes(mp4[at - 4:at], "big")]


def test_a_photograph_becomes_an_mp4_that_decodes_to_what_the_job_says(gateway: Gateway, cat: Path) -> None:
    job = gateway.render(cat)
    assert job["state"] == "completed", job["error"]
    assert "cat" in job["caption"].lower()
    assert job["actual_prompt"]
    assert {"describing", "rendering", "saving"} <= set(job["timings"])
    mp4 = gateway.video(job)
    assert len(mp4) == job["video"]["num_bytes"]
    said = job["video"]
    assert decode(mp4) == (said["num_frames"], said["width"], said["height"], float(said["fps"]))


def test_words_alone_become_an_mp4(gateway: Gateway) -> None:
    job = gateway.render(None, prompt="a red kite over a green hill")
    assert job["state"] == "completed", job["error"]
    assert job["caption"] is None
    assert decode(gateway.video(job))[0] == job["video"]["num_frames"]


def test_the_same_request_and_seed_give_the_same_frames_and_each_file_says_that_it_was_made_by_ai(
    gateway: Gateway, cat: Path
) -> None:
    first, second = (gateway.render(cat, prompt="slow zoom out", enhance="never", seed="7") for _ in range(2))
    assert media_data(gateway.video(first)) == media_data(gateway.video(second))
    for job in (first, second):
        told = gateway.http.get(f"{job['urls']['self']}/provenance").json()
        assert (told["state"], told["model"]) == ("valid", job["parameters"]["model"])
        assert told["source_type"].endswith("trainedAlgorithmicMedia")
        assert job["warnings"] == first["warnings"]


def test_whoever_accepts_mp4_gets_the_bytes_in_the_one_answer(gateway: Gateway, cat: Path) -> None:
    answer = gateway.http.post(
        "/generate", headers={"Accept": "video/mp4"}, files={"image": (cat.name, cat.read_bytes())},
        data={"size": "64x64", "num_frames": "5"},
    )
    assert answer.status_code == 200, answer.text
    assert decode(answer.content)[:3] == (5, 64, 64)
