"""A picture to an MP4 through the three real processes over HTTP, beside plain transformers and diffusers.

    python -m bench.gpu --http [--ways plain,dense,fp8,sparse] [--tiny] [--output bench/results/gpu_http.json]

All of it is counted: the upload, both services, the VAE, the encoder, the download. The same random checkpoints serve
both sides, on one device, in one run. A random Qwen-VL never ends a text by itself: plainly one text of 256 tokens is
written, by ours the caption and the prompt of a job, each as long.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import torch
from PIL import Image

from bench.gpu_checkpoints import save_random_qwen, save_random_wan

REPOSITORY = Path(__file__).resolve().parents[1]
WAYS: dict[str, dict[str, str]] = {
    "plain_layers": {"VIDEO_FAST_LAYERS": "false", "VL_FAST_LAYERS": "false"},
    "dense": {},
    "fp8": {"VIDEO_QUANT_LINEAR": "fp8"},
    "sparse": {"VIDEO_QUANT_LINEAR": "fp8", "VIDEO_ATTENTION_TOPK": "0.1"},
    "sparse_vl_fp8": {"VIDEO_QUANT_LINEAR": "fp8", "VIDEO_ATTENTION_TOPK": "0.1", "VL_QUANT_LINEAR": "fp8"},
}
STEPS = 4
NEW_TOKENS = 128  # of a prompt
_START_S = 400.0


def http_rows(
    device: str, ways: list[str], *, tiny: bool, checkpoints: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Seconds of the ways so far, and ratios once `plain` is among them; the folder `checkpoints` is kept."""
    repeats = 1 if tiny else 3
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wan, qwen = _checkpoints(checkpoints or root, device, tiny=tiny)
        sides = (160, 112) if tiny else (1288, 728)
        size = "96x64" if tiny else "832x480"
        rows: dict[str, Any] = {}
        for way in ways:
            rows[way] = (
                _plain(wan, qwen, sides, device, repeats, tiny=tiny) if way == "plain"
                else _ours(root / way, wan, qwen, sides, size, WAYS[way], repeats))
            _forget()
            for row in rows.values():
                if "plain" in rows:
                    row["ratio"] = round(rows["plain"]["seconds"] / row["seconds"], 2)
            print(way, rows[way], flush=True)
            yield rows


def _checkpoints(folder: Path, device: str, *, tiny: bool) -> tuple[Path, Path]:
    start = time.perf_counter()
    wan, qwen = folder / "wan", folder / "qwen"
    if not wan.exists():
        save_random_wan(wan, device, tiny=tiny)
    if not qwen.exists():
        save_random_qwen(qwen, device, tiny=tiny)
    _forget()
    print(f"checkpoints: {time.perf_counter() - start:.0f} s", flush=True)
    return wan, qwen


def _picture(sides: tuple[int, int], seed: int) -> bytes:
    """Another one each time: of one that was seen before, the features are kept."""
    width, height = sides
    y, x = np.mgrid[:height, :width] + 31 * seed
    waves = np.stack([np.sin(x / 37 + y / 91), np.cos(x / 53), np.sin(y / 29 - x / 70)], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(((waves + 1) * 127).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _plain(
    wan: Path, qwen: Path, sides: tuple[int, int], device: str, repeats: int, *, tiny: bool
) -> dict[str, Any]:
    """transformers' `generate`, then diffusers' pipeline, then PyAV's x264 at its own defaults, in one process."""
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen, dtype=dtype)
    model, tokenizer = loaded.to(device), AutoTokenizer.from_pretrained(qwen)
    processor: Any = AutoImageProcessor.from_pretrained(qwen)
    pipeline: Any = WanImageToVideoPipeline.from_pretrained(wan, torch_dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    (width, height, frames), new = ((96, 64, 9), 8) if tiny else ((832, 480, 81), NEW_TOKENS)

    def run(seed: int) -> dict[str, float]:
        picture = _picture(sides, seed)
        marks = [time.perf_counter()]
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        seen = processor(images=[image], return_tensors="pt").to(device)
        tokens = int(seen.image_grid_thw.prod()) // 4
        words = tokenizer("describe this picture and write the prompt of a video " * 8).input_ids
        ids = torch.tensor([[*words, *[model.config.image_token_id] * tokens, *words]], device=device)
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=seen.pixel_values.to(dtype),
            image_grid_thw=seen.image_grid_thw, mm_token_type_ids=(ids == model.config.image_token_id).int(),
            max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=20)
        prompt = tokenizer.decode(written[0, ids.shape[1]:], skip_special_tokens=True)
        marks.append(time.perf_counter())
        clip = pipeline(
            image=image.resize((width, height)), prompt=prompt, width=width, height=height, num_frames=frames,
            num_inference_steps=STEPS, guidance_scale=1.0, generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np").frames[0]
        marks.append(time.perf_counter())
        _write_plainly((clip * 255).round().astype(np.uint8))
        marks.append(time.perf_counter())
        stages = dict(zip(("describing", "rendering", "writing"), np.diff(marks).tolist(), strict=True))
        return stages | {"seconds": marks[-1] - marks[0]}

    with torch.inference_mode():
        return _median([run(seed) for seed in range(repeats + 1)][1:])


def _write_plainly(frames_THWC: np.ndarray) -> None:
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _ours(
    folder: Path, wan: Path, qwen: Path, sides: tuple[int, int], size: str, settings: Mapping[str, str],
    repeats: int,
) -> dict[str, Any]:
    folder.mkdir()
    started = time.perf_counter()
    with _services(folder, {"VIDEO_MODEL": str(wan), "VL_MODEL": str(qwen)} | {**settings}) as url:
        ready_s = time.perf_counter() - started
        with httpx.Client(base_url=url, timeout=300, trust_env=False) as http:
            models = http.get("/v1/models").json()["data"]
            first, *others = [_job(http, _picture(sides, seed), size, seed) for seed in range(repeats + 1)]
    found = _median([job for job, _ in others])
    return found | {"first_s": round(first[0]["seconds"], 3), "ready_s": round(ready_s, 1),
                    "video_bytes": others[-1][1], "models": models}


def _job(http: httpx.Client, picture: bytes, size: str, seed: int) -> tuple[dict[str, float], int]:
    """From the first byte sent to the last one received, and the stages as the job tells them."""
    start = time.perf_counter()
    data = {"steps": str(STEPS), "guidance_scale": "1", "seed": str(seed), "size": size}
    answer = http.post(
        "/generate", data=data, files={"image": ("picture.png", picture)}, headers={"Prefer": "wait=50"})
    answer.raise_for_status()
    job = answer.json()
    while job["state"] in ("queued", "running"):
        job = http.get(job["urls"]["self"], params={"wait": 50}).json()
    if job["state"] != "completed":
        raise RuntimeError(f"the job ended so: {job['error']}")
    told = time.perf_counter() - start
    video = http.get(job["urls"]["content"])
    video.raise_for_status()
    seconds = time.perf_counter() - start
    around = {"before_and_after": told - job["timings"]["total"], "download": seconds - told, "seconds": seconds}
    return job["timings"] | around, len(video.content)


@contextmanager
def _services(folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """`stillmotion serve` until the block ends; the gateway's address."""
    ports = {"GATEWAY_PORT": "28000", "VL_PORT": "28001", "VIDEO_PORT": "28002"}
    paths = [str(REPOSITORY), str(REPOSITORY / "services"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **ports, **settings} | {
        "STILLMOTION_DATA": str(folder / "data"), "PYTHONPATH": os.pathsep.join(paths)}
    url, log = f"http://127.0.0.1:{ports['GATEWAY_PORT']}", folder / "serve.log"
    with log.open("wb") as stream:
        serving = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve"], env=environment, stdout=stream, stderr=stream)
    try:
        _wait_ready(url, serving, log)
        yield url
    except Exception:
        print(log.read_text(encoding="utf-8")[-6000:], flush=True)
        raise
    finally:
        serving.terminate()
        try:
            serving.wait(60)
        except subprocess.TimeoutExpired:
            serving.kill()


def _wait_ready(url: str, serving: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if serving.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError("the services are not ready")


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}


def _forget() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
