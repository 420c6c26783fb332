"""Full-size graphs with random weights, exported and built for RTX GPUs on this machine: time, size, peak memory.

    python -m bench.engines_full [--only wan2.1-1.3b,wan-vae-decoder] [--sm 86,89,120] [--folder out/engines-full]

Each export and each build runs in a process of its own, so that its peak memory is its own. Nothing runs on a GPU here:
an engine's numbers are not checked, and the same graphs of tiny checkpoints are (`make test`).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = {"width": 832, "height": 480, "num_frames": 81, "text_tokens": 512}
PRECISION = "bf16"
DIT_1_3B = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
DIT_14B = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824}
BLOCKS_14B = 40
NEEDED_BYTES = 14 * 2**30
RESULT = Path(__file__).parent / "results" / "engines_full.json"

GRAPHS: dict[str, tuple[str, dict[str, int]]] = {
    "wan-vae-decoder-first": ("vae_decoder_first", {}),
    "wan-vae-decoder-later": ("vae_decoder_later", {}),
    "wan2.1-1.3b": ("transformer", DIT_1_3B),
    "wan2.1-14b-2-blocks": ("transformer", DIT_14B | {"num_layers": 2}),
    "wan2.1-14b-4-blocks": ("transformer", DIT_14B | {"num_layers": 4}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(GRAPHS))
    parser.add_argument("--sm", default="86,89,120")
    parser.add_argument("--folder", type=Path, default=Path("out/engines-full"))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(_measured(lambda: _step(json.loads(asked.step)))))
        return 0
    for name in asked.only.split(","):
        free = _available_bytes()
        if free < NEEDED_BYTES:
            print(f"{name}: left out, {free / 1e9:.1f} GB of memory are free and {NEEDED_BYTES / 1e9:.1f} are needed")
            continue
        _keep(name, _graph(name, asked.sm.split(","), asked.folder / name))
    return 0


def _keep(name: str, found: dict[str, Any]) -> None:
    # Read again: several of these may have run side by side.
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"graphs": {}}
    results |= {"precision": PRECISION, "shape": SIZE, "cores": os.cpu_count()}
    results["graphs"][name] = found
    if len({"wan2.1-14b-2-blocks", "wan2.1-14b-4-blocks"} & results["graphs"].keys()) == 2:
        results["wan2.1-14b on paper"] = _on_paper(results["graphs"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


def _graph(name: str, capabilities: list[str], folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 1)}
    found["export"] = _run({"what": "export", "name": name, "folder": str(folder)})
    print(f"{name}: exported {found['export']}", flush=True)
    for number in capabilities:
        key = f"SM{number}"
        found[key] = _run({"what": "build", "capability": key, "folder": str(folder)})
        print(f"{name}: {key} {found[key]}", flush=True)
    shutil.rmtree(folder)
    return found


def _run(step: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.engines_full", "--step", json.dumps(step)], capture_output=True, text=True,
        check=False, timeout=3 * 3600,
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:500] if done.stderr else f"exit {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    start = time.monotonic()
    found = work()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_bytes": usage.ru_maxrss * 1024} | found


def _step(step: dict[str, str]) -> dict[str, Any]:
    return _export(step) if step["what"] == "export" else _build(step)


def _export(step: dict[str, str]) -> dict[str, Any]:
    import torch

    from engines.export.graph import DTYPES
    from engines.export.onnx import export_graph
    from video_service.engines.shape import ClipShape
    from video_service.layers.wan.graphs import decoder_graphs, transformer_graph

    name, config = GRAPHS[step["name"]]
    shape, dtype = ClipShape(**SIZE), DTYPES[PRECISION]
    torch.manual_seed(0)
    if name == "transformer":
        graph = transformer_graph(_transformer(config, dtype), {"scale_factor_spatial": 8}, shape)
    else:
        graph = next(found for found in decoder_graphs(_vae(dtype), shape) if found.name == name)
    facts = export_graph(graph, Path(step["folder"]), attention="fused-half")
    size = sum(file.stat().st_size for file in Path(step["folder"]).iterdir())
    return {"nodes": facts.nodes, "weights": facts.weights, "bytes": size, "operators": _few(facts.operators)}


def _transformer(config: dict[str, int], dtype: Any) -> Any:
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.set_default_dtype(dtype)  # made in float32 first, it would take twice the memory
    transformer: Any = WanTransformer3DModel(in_channels=16, out_channels=16, text_dim=4096, freq_dim=256, **config)
    torch.set_default_dtype(torch.float32)
    for key, parameter in transformer.named_parameters():
        if any(word in key for word in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    return transformer.eval().requires_grad_(False)


def _vae(dtype: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan().to(dtype).eval().requires_grad_(False)


def _build(step: dict[str, str]) -> dict[str, Any]:
    from engines.build.tensorrt import build_engine
    from engines.export.onnx import MODEL_NAME
    from engines.run.trt_api import load_tensorrt_rtx

    plan = build_engine(load_tensorrt_rtx(), Path(step["folder"]) / MODEL_NAME, capability=step["capability"])
    return {"bytes": len(plan)}


def _few(operators: Any) -> dict[str, int]:
    return {name: operators[name] for name in ("Attention", "Softmax", "MatMul", "Conv", "Cast") if name in operators}


def _on_paper(graphs: dict[str, Any]) -> dict[str, Any]:
    """All 40 blocks from what two and four took: a straight line in the number of blocks."""
    small, large = graphs["wan2.1-14b-2-blocks"], graphs["wan2.1-14b-4-blocks"]
    paper: dict[str, Any] = {}
    for part in small.keys() & large.keys():
        if not isinstance(small[part], dict) or "failed" in small[part] or "failed" in large[part]:
            continue
        paper[part] = {
            key: round(small[part][key] + (BLOCKS_14B - 2) * (large[part][key] - small[part][key]) / 2)
            for key in ("cpu_seconds", "peak_bytes", "bytes")
        }
    return paper


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


if __name__ == "__main__":
    sys.exit(main())
