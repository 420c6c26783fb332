"""One video over several GPUs of a machine beside one of them, with random weights: a step, and a whole render.

    python -m bench.gpu --only parallel,parallel_render [--tiny] [--output FILE.json]

Two GPUs, then four and eight where there are as many; `--tiny` takes processes of a CPU. Rows come one by one.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu_measure import measure, relative
from bench.gpu_video import DIT_1_3B, DIT_14B, DIT_TINY, FULL, TIMESTEPS, TINY, random_transformer, random_vae
from video_service.layers.attention.sla import Sla
from video_service.layers.wan.codec import Codec
from video_service.layers.wan.fast import FastCodec, FastTransformer
from video_service.worker.peers.group import PeerGroup

Rows = dict[str, dict[str, Any]]
MODELS = {"1.3B": (DIT_1_3B, 4), "14B": (DIT_14B, 2)}
"""Their size, and how many steps are measured together."""
WAYS: dict[str, dict[str, Any]] = {"dense": {}, "sla_fp8": {"fp8": True, "topk": 0.1}}
_REPEATS = 3


def parallel_stage(device: str, tiny: bool) -> Iterator[Rows]:
    """Seconds of a step of 832x480, 81 frames, by model, way and number of devices."""
    rows: Rows = {}
    alone: dict[str, torch.Tensor] = {}
    for size in _sizes(device):
        group = PeerGroup(size, device, threads=1 if device == "cpu" else 0)
        for model, (config, steps) in ({"tiny": (DIT_TINY, 2)} if tiny else MODELS).items():
            transformer = random_transformer(config, device)
            for way, options in WAYS.items():
                name = f"{model} {way}"
                own = _options(transformer, options, device, tiny=tiny)
                if name not in alone:
                    rows[f"{name} x1"], alone[name] = _steps(FastTransformer(transformer, **own), steps, device, tiny)
                    yield rows
                _forget()
                start = time.perf_counter()
                network = group.split(transformer, **own)
                load_s = round(time.perf_counter() - start, 2)
                rows[f"{name} x{size}"], found = _steps(network, steps, device, tiny)
                del network
                _forget()
                rows[f"{name} x{size}"] |= {
                    "load_s": load_s,
                    "ratio": round(rows[f"{name} x1"]["seconds"] / rows[f"{name} x{size}"]["seconds"], 2),
                    "relative_L2_x1": relative(found, alone[name])}
                print(name, size, rows[f"{name} x{size}"], flush=True)
                yield rows
            del transformer
            _forget()
        if device == "cuda":
            yield from _decodes(group, rows)
        group.close()


def _decodes(group: PeerGroup, rows: Rows) -> Iterator[Rows]:
    """The VAE's decoder alone, to bytes on the host."""
    vae = random_vae("cuda", tiny=False)
    torch.manual_seed(2)
    latents = torch.randn(1, *FULL["latents"], device="cuda", dtype=torch.bfloat16)
    frames: dict[int, torch.Tensor] = {}
    for size, codec in ((1, FastCodec(vae)), (group.size, group.codec(vae))):
        rows[f"decode x{size}"] = measure(partial(_decode, codec, latents), kernels=12)
        frames[size] = _decode(codec, latents)
        yield rows
    apart = (frames[1].int() - frames[group.size].int()).abs()
    rows[f"decode x{group.size}"] |= {
        "ratio": round(rows["decode x1"]["seconds"] / rows[f"decode x{group.size}"]["seconds"], 2),
        "levels_apart_mean": round(float(apart.float().mean()), 4), "levels_apart_most": int(apart.max())}
    print("decode", group.size, rows[f"decode x{group.size}"], flush=True)
    yield rows


def _decode(codec: Codec, latents: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(codec.decode_levels(latents)), 1)


def _sizes(device: str) -> list[int]:
    """Of the groups that this machine can hold."""
    devices = torch.cuda.device_count() if device == "cuda" else 2
    found = [size for size in (2, 4, 8) if size <= devices]
    if not found:
        raise RuntimeError("one video over several GPUs needs a machine with two")
    return found


def _options(transformer: Any, options: dict[str, Any], device: str, *, tiny: bool) -> dict[str, Any]:
    if "topk" not in options:
        return options
    head = transformer.config["attention_head_dim"]
    torch.manual_seed(1)
    projections = [(torch.randn(head, head, device=device) / head, torch.zeros(head, device=device))]
    return {"fp8": options["fp8"], "sparse": Sla(
        topk=0.5 if tiny else options["topk"], projections=projections * len(transformer.blocks))}


def _steps(network: FastTransformer, steps: int, device: str, tiny: bool) -> tuple[dict[str, Any], torch.Tensor]:
    """Seconds of one step, and the velocity at the first."""
    shape = TINY if tiny else FULL
    torch.manual_seed(2)
    latents = torch.randn(1, *shape["latents"], device=device).to(torch.bfloat16)
    text = torch.randn(1, shape["text"], network.config["text_dim"], device=device).to(torch.bfloat16)

    def run() -> torch.Tensor:
        velocity = [network(latents, torch.tensor([at]), text, return_dict=False)[0] for at in TIMESTEPS[:steps]]
        return velocity[-1]

    found = measure(run, kernels=12)
    found["seconds"] = round(found["seconds"] / steps, 4)
    return found, network(latents, torch.tensor(TIMESTEPS[:1]), text, return_dict=False)[0].cpu()


def parallel_render_stage(device: str, tiny: bool) -> Iterator[Rows]:
    """A picture to an MP4 by the 1.3B, in the worker's own code: seconds, and of each stage."""
    from bench.gpu_checkpoints import save_random_wan

    rows: Rows = {}
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_wan(Path(folder) / "wan", device, tiny=tiny, small_text=True)
        _forget()
        sparse = {"quant_linear": "fp8", "attention_topk": 0.1}
        ways: dict[str, tuple[str, dict[str, Any]]] = {  # what one device is asked for, and what several beside it
            "sparse_fp8": ("sparse_fp8", sparse), "sparse_fp8_decode": ("sparse_fp8", sparse | {"gpus_decode": True}),
            "dense": ("dense", {}), "guided": ("guided", {}), "guided_apart": ("guided", {"gpus_guidance": True})}
        for way, (alone, own) in ways.items():
            for size in (1, *_sizes(device)) if way == alone else _sizes(device):
                rows[f"{way} x{size}"] = _renders(
                    model, device, size, own if device == "cuda" else {}, 5.0 if alone == "guided" else 1.0, tiny=tiny)
                rows[f"{way} x{size}"]["ratio"] = round(
                    rows[f"{alone} x1"]["seconds"] / rows[f"{way} x{size}"]["seconds"], 2)
                print(way, size, rows[f"{way} x{size}"], flush=True)
                yield rows


def _renders(
    model: Path, device: str, size: int, own: dict[str, Any], guidance_scale: float, *, tiny: bool
) -> dict[str, Any]:
    from contracts.videos import VideoRequest
    from video_service.deployment import Deployment
    from video_service.render.progress import silent
    from video_service.settings import VideoSettings

    width, height, frames = (96, 64, 9) if tiny else (832, 480, 81)
    settings = VideoSettings(
        model=str(model), device=device, engine="torch", gpus=size,  # type: ignore[arg-type]
        **({"threads": 1} if device == "cpu" else {}), **own)
    deployment = Deployment(settings)
    deployment.load_first()
    results = []
    for seed in range(_REPEATS + 1):
        request = VideoRequest.model_validate({
            "prompt": f"a cat walks {seed}", "width": width, "height": height, "num_frames": frames, "fps": 16,
            "seed": seed, "steps": 4, "sampler": "euler", "guidance_scale": guidance_scale})
        start = time.perf_counter()
        result = deployment.render(request, model.parent / f"{size}-{seed}.mp4", silent, lambda _: None)
        results.append((time.perf_counter() - start, result))
    deployment.close()
    reason = results[-1][1].engine_reason
    del deployment
    _forget()
    best = results[1:]
    return {
        "seconds": round(statistics.median(seconds for seconds, _ in best), 4),
        "timings": {stage: round(statistics.median(result.timings.get(stage, 0.0) for _, result in best), 4)
                    for stage in best[0][1].timings},
        "form": reason,
    }


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
