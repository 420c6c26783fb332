"""A new family is one file and one line: a toy of another shape, rendered over HTTP by the real service."""

import io
from typing import Any

import av
import numpy as np
import pytest

from tests.support.video_process import VideoProcess

pytestmark = pytest.mark.slow

BODY: dict[str, Any] = {
    "model": "toy", "prompt": "w" * 40, "width": 96, "height": 72, "num_frames": 6, "fps": 8, "seed": 1,
}


def test_its_video_has_its_frames_and_its_size(service: VideoProcess) -> None:
    """Six frames are not 4k+1, 72 is no multiple of 16, and there is no stage `condition`."""
    assert service.http.put("/v1/videos/toy", json=BODY).status_code == 202
    status = service.wait_ended("toy")
    assert status["state"] == "completed", status["error"]
    result = status["result"]
    assert (result["sampler"], result["steps"], result["num_frames"]) == ("halving", 3, 6)
    assert set(result["timings"]) - {"load"} == {"text", "denoise", "decode", "write", "total"}
    with av.open(io.BytesIO(service.http.get("/v1/videos/toy/content").content), mode="r") as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == (6, 72, 96, 3)
    assert np.abs(frames.astype(int) - 80).max() <= 3, "forty letters, at a gain of two"


@pytest.mark.parametrize(("change", "advice"), [
    ({"width": 100}, "multiples of 24"), ({"num_frames": 31}, "2 to 30"), ({"steps": 10}, "1 to 9 steps"),
    ({"sampler": "unipc"}, "takes halving"), ({"guidance_scale": 2.0}, "from 1 to 1"),
])
def test_its_own_bounds_are_told_and_kept(service: VideoProcess, change: dict[str, Any], advice: str) -> None:
    answer = service.http.put("/v1/videos/refused", json=BODY | change)
    assert answer.status_code == 422
    assert advice in answer.json()["detail"]
    (info,) = [told for told in service.http.get("/v1/models").json()["data"] if told["id"] == "toy"]
    assert (info["family"], info["size_multiple"], info["num_frames"]["step"]) == ("toy", 24, 1)
