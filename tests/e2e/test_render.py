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


def test_the_same_request_and_seed_give_the_same_bytes(gateway: Gateway, cat: Path) -> None:
    first, second = (gateway.render(cat, prompt="slow zoom out", enhance="never", seed="7") for _ in range(2))
    assert first["video"]["sha256"] == second["video"]["sha256"]


def test_whoever_accepts_mp4_gets_the_bytes_in_the_one_answer(gateway: Gateway, cat: Path) -> None:
    answer = gateway.http.post(
        "/generate", headers={"Accept": "video/mp4"}, files={"image": (cat.name, cat.read_bytes())},
        data={"size": "64x64", "num_frames": "5"},
    )
    assert answer.status_code == 200, answer.text
    assert decode(answer.content)[:3] == (5, 64, 64)
