"""The embedded checkpoint in torch and in ONNX Runtime on this CPU: seconds and peak memory, side by side in one run.

    python -m bench.engines_cpu [--size 256x256] [--frames 33] [--rounds 3] [--precision fp32] [--folder FOLDER]

Engines are built once into the folder. Then each round renders the same clip in a fresh process of either engine, in
turn, so that whatever else the machine does meets both. Ratios are of CPU seconds, which other work disturbs least.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "engines_cpu.json"
STEPS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--folder", type=Path, default=Path("out/engines-cpu"))
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--child", choices=("torch", "onnx"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(_render(asked)))
        return 0
    if not _built(asked):
        return 1
    rounds: dict[str, list[dict[str, float]]] = {"torch": [], "onnx": []}
    for index in range(asked.rounds):
        for engine, found in rounds.items():
            found.append(_child(asked, engine))
            print(f"round {index + 1} {engine:6}{found[-1]}", flush=True)
    asked.output.write_text(json.dumps(_summary(asked, rounds), indent=2) + "\n")
    return 0


def _summary(asked: argparse.Namespace, rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    middle = {
        engine: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for engine, found in rounds.items()
    }
    torch, onnx = middle["torch"], middle["onnx"]
    ratios = {key: round(onnx[key] / torch[key], 3) for key in ("wall_s", "cpu_s", "peak_bytes")}
    print(f"\n{'':10}{'wall s':>10}{'CPU s':>10}{'peak GB':>10}")
    for engine, one in middle.items():
        print(f"{engine:10}{one['wall_s']:10.2f}{one['cpu_s']:10.2f}{one['peak_bytes'] / 1e9:10.2f}")
    print(f"{'onnx/torch':10}{ratios['wall_s']:10.2f}{ratios['cpu_s']:10.2f}{ratios['peak_bytes']:10.2f}")
    return {
        "size": asked.size, "frames": asked.frames, "steps": STEPS, "precision": asked.precision,
        "cores": os.cpu_count(), "load_average_after": round(os.getloadavg()[0], 1), "median": middle,
        "onnx_over_torch": ratios, "rounds": rounds,
    }


def _environment(asked: argparse.Namespace, engine: str) -> dict[str, str]:
    return os.environ | {
        "VIDEO_MODEL": "embedded", "VIDEO_DEVICE": "cpu", "VIDEO_DTYPE": "float32", "VIDEO_ENGINE": engine,
        "VIDEO_ENGINES": str(asked.folder.resolve()),
    }


def _built(asked: argparse.Namespace) -> bool:
    command = [sys.executable, "-m", "video_service.engines", "build", "--size", asked.size,
               "--frames", str(asked.frames), "--target", "onnx", "--precision", asked.precision]
    return subprocess.run(command, env=_environment(asked, "torch"), check=False).returncode == 0


def _child(asked: argparse.Namespace, engine: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.engines_cpu", "--child", engine, "--size", asked.size,
               "--frames", str(asked.frames)]
    done = subprocess.run(
        command, env=_environment(asked, engine), check=True, stdout=subprocess.PIPE, text=True, timeout=3600,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def _render(asked: argparse.Namespace) -> dict[str, float]:
    """One clip after a short one that pays for what is set up lazily; loading is not in the time."""
    from contracts.videos import VideoRequest
    from video_service.engines.shelf import EngineShelf
    from video_service.model import find_model, load_model
    from video_service.render.generate import generate
    from video_service.settings import VideoSettings

    settings = VideoSettings()
    source = find_model(settings)
    shelf = EngineShelf(load_model(source, settings), source.engine, settings)
    width, height = (int(side) for side in asked.size.split("x"))
    request = VideoRequest(
        prompt="slow zoom in", image=_picture(width, height), width=width, height=height, num_frames=asked.frames,
        fps=16, seed=7, steps=STEPS,
    )
    model = shelf.model_for(request)
    assert asked.child in model.info.engine
    with tempfile.TemporaryDirectory() as folder:
        generate(model, request.model_copy(update={"steps": 1}), Path(folder) / "first.mp4", lambda *_: None)
        wall, cpu = time.perf_counter(), time.process_time()
        result = generate(model, request, Path(folder) / "video.mp4", lambda *_: None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stages = {f"{name}_s": round(seconds, 3) for name, seconds in result.timings.items() if name != "total"}
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "peak_bytes": peak} | stages


def _picture(width: int, height: int) -> bytes:
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns % 256, rows % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
