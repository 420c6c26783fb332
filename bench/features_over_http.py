"""What it costs a language role that another service sees for it: features over HTTP, seeing itself left out.

    python -m bench.features_over_http [--calls 20] [--output FILE]

A service in the vision role, in processes of its own, has seen the picture (its cache answers); the language role's
client asks it again. The size is Qwen2.5-VL-3B's: 1,196 tokens of 2,048 channels in bfloat16, 4.9 MB, of a picture of
1288x728. `wall_ms`: median of the calls. `cpu_ms`: of all three processes, a call, for machines that others use, too.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

sys.path.insert(0, str(Path(__file__).parent.parent / "services"))  # where nothing is installed

from vl_service.images import DecodedImage
from vl_service.qwen.vision.features import expected_of
from vl_service.qwen.vision.remote import RemoteVision
from vl_service.settings import Settings

_CHANNELS, _SIZE, _TOKENS = 2048, (1288, 728), 1196


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = _save(Path(folder))
        with _service(Path(folder)) as (url, pid):
            picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*_SIZE[::-1], 3), np.uint8))
            vision = _client(url, picture, config)
            found = _measured(vision, DecodedImage(rgb=picture, width=_SIZE[0], height=_SIZE[1]), pid, asked.calls)
    print(json.dumps(found))
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measured(vision: RemoteVision, picture: DecodedImage, pid: int, calls: int) -> dict[str, float]:
    there = psutil.Process(pid)
    processes = [psutil.Process(), there, *there.children(recursive=True)]
    for _ in range(3):
        vision.features_of(picture)
    features = vision.features_of(picture)
    assert features.embeddings.shape == (_TOKENS, _CHANNELS)
    assert features.cache == "memory"
    before, seconds = [_cpu_s(process) for process in processes], []
    for _ in range(calls):
        start = time.perf_counter()
        vision.features_of(picture)
        seconds.append(time.perf_counter() - start)
    used = [1e3 * (_cpu_s(process) - then) / calls for process, then in zip(processes, before, strict=True)]
    names = ("client", "http", "worker")
    parts = {f"{name}_cpu_ms": round(ms, 1) for name, ms in zip(names, used, strict=True)}
    return {"wall_ms": round(1e3 * statistics.median(seconds), 1), "least_ms": round(1e3 * min(seconds), 1),
            "cpu_ms": round(sum(used), 1)} | parts


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _client(url: str, picture: Image.Image, config: Any) -> RemoteVision:
    """Of a language model that takes what the service gives."""
    with tempfile.SpooledTemporaryFile() as file:
        picture.save(file, "PPM")
        file.seek(0)
        body = httpx.post(f"{url}/v1/features", content=file.read(), timeout=60).raise_for_status().content
    (length,) = struct.unpack("<Q", body[:8])
    told = json.loads(body[8 : 8 + length])["__metadata__"]
    expected = expected_of(
        config, processor=told["processor"], revision=told["revision"], dtype=torch.bfloat16)
    return RemoteVision(Settings(vision_url=url), expected)


def _save(folder: Path) -> Any:
    """A checkpoint with few layers that sees in the size of the large one; its config."""
    text = {"vocab_size": 64, "hidden_size": _CHANNELS, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 16, "num_key_value_heads": 1}
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": _CHANNELS,
              "fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)  # type: ignore[arg-type]
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}).save_pretrained(folder)
    return config


@contextmanager
def _service(folder: Path) -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(Path(__file__).parent.parent / "services"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "VL_ROLE": "vision", "VL_MODEL": str(folder), "VL_PORT": str(port), "VL_DEVICE": "cpu", "VL_DTYPE": "bfloat16",
        "VL_THREADS": "1", "STILLMOTION_LOG_LEVEL": "WARNING", "STILLMOTION_DATA": str(folder / "data"),
        "PYTHONPATH": os.pathsep.join(paths)}
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "vl_service"], env=environment)
    try:
        _wait_for(url, process)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise SystemExit("the service ended")


if __name__ == "__main__":
    main()
