"""What the preview frames of a render cost: Wan2.1-1.3B with random weights, the same clips watched and not."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import video_service.media.preview as preview
from bench.gpu_checkpoints import save_random_wan
from contracts.videos import VideoRequest
from video_service.model import Opened, open_model
from video_service.render.progress import silent
from video_service.render.warm_up import warm_up
from video_service.settings import VideoSettings

_ROUNDS = 7
_WAYS: dict[str, dict[str, Any]] = {
    "dense": {}, "sparse": {"quant_linear": "fp8", "attention_topk": 0.1}}
"""Settings of the video service; the second is there for its quick steps."""


def previews_stage(device: str, tiny: bool) -> dict[str, Any]:
    """A picture's condition, four steps, and the MP4."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_random_wan(Path(folder) / "wan", device, tiny=tiny, small_text=True)
        for name, own in _WAYS.items():
            if device == "cpu" and own:
                continue
            opened = open_model(VideoSettings.model_validate({"model": str(checkpoint), "device": device} | own))
            warm_up(opened.engine, opened.info)
            first = "plain" if name == "dense" else name
            rows[first], rows[f"{name}_watched"] = _watched_and_not(opened)
            print(name, rows[first], rows[f"{name}_watched"], flush=True)
    return rows


def _watched_and_not(opened: Opened) -> tuple[dict[str, Any], dict[str, Any]]:
    """In turns, so that what disturbs one disturbs the other."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    steps: dict[bool, list[float]] = {False: [], True: []}
    looks = 0
    for turn in range(2 * _ROUNDS):
        watched = turn % 2 == 1
        with tempfile.TemporaryDirectory() as folder:
            counted = _Counted()
            timings = counted.run(opened, _request(opened, seed=turn // 2, watched=watched), Path(folder))
        seconds[watched].append(timings["total"])
        steps[watched].append(timings["denoise"])
        looks += counted.looks
    rows = [{"seconds": round(statistics.median(seconds[way]), 4), "denoise_s": round(statistics.median(steps[way]), 4)}
            for way in (False, True)]
    more = [watched - alone for alone, watched in zip(steps[False], steps[True], strict=True)]
    rows[1] |= {"looks": looks / _ROUNDS, "more_denoise": round(statistics.median(more) / rows[0]["denoise_s"], 5)}
    return rows[0], rows[1]


class _Counted:
    """Renders, and counts the previews."""

    def __init__(self) -> None:
        self.looks = 0

    def run(self, opened: Opened, request: VideoRequest, folder: Path) -> dict[str, float]:
        small_jpeg = preview.small_jpeg

        def counting(frame_HWC: Any) -> bytes:
            self.looks += 1
            return small_jpeg(frame_HWC)

        preview.small_jpeg = counting
        try:
            return opened.engine(request, folder / "video.mp4", silent).timings
        finally:
            preview.small_jpeg = small_jpeg


def _request(opened: Opened, *, seed: int, watched: bool) -> VideoRequest:
    info = opened.info
    width, height = map(int, info.sizes[0].split("x"))
    return VideoRequest(
        prompt="A slow pan over a plain.", width=width, height=height, num_frames=info.num_frames.default,
        fps=info.fps.default, steps=4, sampler="ode", seed=seed, preview=watched)
