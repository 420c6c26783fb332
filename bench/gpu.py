"""Every stage at full size with random weights: plain diffusers and transformers beside ours, in one process.

    python -m bench.gpu [--only vae,still,dit,dit14b,i2vgen,experts,turns,vl,previews] [--tiny] [--output FILE]
    python -m bench.gpu --only parallel,parallel_render           # one video over several GPUs: see gpu_parallel
    python -m bench.gpu --http [--ways plain,dense,fp8,sparse]    # a picture to an MP4 through the three services

Seconds are medians of three after a warm-up; accuracy stands beside each. `--tiny` runs the same code on any machine.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "services"))  # where nothing is installed

_LONG = ("seconds", "slowest", "warm_up_s", "models")
RESULT = Path(__file__).parent / "results" / "gpu.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="vae,still,dit,vl")
    parser.add_argument("--http", action="store_true", help="the whole way over HTTP, instead of stages")
    parser.add_argument("--ways", default="plain,dense,fp8,sparse", help="settings of the services: see gpu_http.WAYS")
    parser.add_argument("--checkpoints", type=Path, help="a folder that keeps those of --http for the next run")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON file; left out: in bench/results")
    parser.add_argument("--commit", default=commit(), help="what the result says it measured")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {
        "commit": asked.commit, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__, "stages": {},
    }
    output = asked.output or RESULT.with_name("gpu_http.json" if asked.http else "gpu.json")
    for name in ["http"] if asked.http else asked.only.split(","):
        start = time.perf_counter()
        try:
            if asked.http:
                for rows in http_rows(device, asked):
                    results["stages"][name] = rows
                    store(results, output)
            else:
                found = stages()[name](device, asked.tiny)
                for rows in [found] if isinstance(found, dict) else found:
                    results["stages"][name] = rows
                    store(results, output)
        except Exception:  # the other stages still count
            results["stages"].setdefault(name, {})["failed"] = traceback.format_exc()[-2000:]
            print(results["stages"][name]["failed"], flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        store(results, output)
    print(table(results["stages"]))
    return int(any("failed" in rows for rows in results["stages"].values()))


def store(results: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def http_rows(device: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import gpu_http

    return gpu_http.http_rows(device, asked.ways.split(","), tiny=asked.tiny, checkpoints=asked.checkpoints)


def stages() -> dict[str, Callable[[str, bool], dict[str, Any] | Iterator[dict[str, Any]]]]:
    from bench import gpu_families, gpu_parallel, gpu_previews, gpu_video, gpu_vl

    return {"i2vgen": gpu_families.i2vgen_stage, "experts": gpu_families.experts_stage,
            "turns": gpu_families.turns_stage,
            "vae": gpu_video.vae_stage, "still": gpu_video.still_stage, "dit": gpu_video.dit_stage,
            "parallel": gpu_parallel.parallel_stage, "parallel_render": gpu_parallel.parallel_render_stage,
            "dit14b": gpu_video.dit_14b_stage, "vl": gpu_vl.vl_stage, "previews": gpu_previews.previews_stage}


def table(found: dict[str, Any]) -> str:
    lines = []
    for stage, rows in found.items():
        if "failed" in rows:
            lines.append(f"{stage:8} failed")
            continue
        plain = rows.get("plain", {}).get("seconds", float("nan"))
        for way, row in rows.items():
            more = {key: value for key, value in row.items() if key not in _LONG}
            lines.append(f"{stage:8} {way:12} {row['seconds']:8.4f} s  {plain / row['seconds']:5.2f}x  {more}")
    return "\n".join(lines)


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
