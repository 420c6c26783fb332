"""Evaluates a checkpoint, and the vision-language engine, on pictures that training never saw.

    make eval                                     # everything, on the embedded checkpoints, into out/evaluation
    make eval EVAL="--photos 2 --quick"           # two photographs, three motions, few vision pictures
    python -m training.evaluation.evaluate --model models/video --motions zoom_in,hold

renders every photograph with every motion through the video service's own `generate`, then measures the MP4s: first
frame against the fitted input, the motion by optical flow, flicker, sharpness. It writes report.json, report.md, a
contact sheet per picture, and a table of every measure against its bar. `--judge-only` measures again what an earlier
run rendered, on another machine if need be; `--engine diffusers` renders with diffusers' own pipeline, which needs
neither PyAV nor the service. Clips that an earlier run left in the folder are kept where weights and options are the
same.

`make eval` in full renders 8 photographs x 9 motions x 3 ways to ask = 216 clips of 4 steps (about 45 minutes on two
free cores at 12 s each) and 18 clips of 32 steps (about 20 minutes); pictures in words take some minutes more.
"""

import argparse
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.evaluation.set import ASKS, MOTIONS, Ask, Case, load_photographs, make_cases

Frames = NDArray[np.uint8]
Render = Callable[[Case, Image.Image, Path], None]
FPS = 16
QUICK_MOTIONS = "zoom_in,pan_left,hold"
PARTS = ("video", "vision")
COMPOSITIONS, QUICK_COMPOSITIONS = 60, 12


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/video", help="checkpoint folder")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"))
    parser.add_argument("--pictures", type=Path, help="folder of photographs in place of scikit-image's")
    parser.add_argument("--names", help="photographs by name, separated by commas")
    parser.add_argument("--photos", type=int, help="only the first N photographs")
    parser.add_argument("--motions", default="all", help=f"all, or some of {','.join(MOTIONS)}")
    parser.add_argument("--wordings", type=int, default=1, help="prompts per photograph and motion")
    parser.add_argument("--asks", default="single", help=f"all, or some of {','.join(ASKS)}")
    parser.add_argument("--parts", default="video", help=f"all, or some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true",
                        help=f"two photographs and {QUICK_MOTIONS} unless told otherwise; few vision pictures")
    parser.add_argument("--language", choices=("any", "en", "zh"), default="en", help="of the single motions' prompts")
    parser.add_argument("--vl-model", default="embedded", help="of the vision part: what VL_MODEL may name")
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--sampler", help="service engine only; default: the model's own")
    parser.add_argument("--guidance", type=float, help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="K/N: only each Nth clip from the Kth, for N processes at once")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--engine", choices=("service", "diffusers"), default="service")
    parser.add_argument("--render-only", action="store_true")
    parser.add_argument("--judge-only", action="store_true")
    options = parser.parse_args()
    options.asks = ASKS if options.asks == "all" else tuple(options.asks.split(","))
    options.parts = PARTS if options.parts == "all" else tuple(options.parts.split(","))
    for given, known in ((options.asks, ASKS), (options.parts, PARTS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if options.quick:
        options.photos = options.photos or 2
        options.motions = QUICK_MOTIONS if options.motions == "all" else options.motions
    return options


def _service(options: argparse.Namespace, width: int, height: int) -> Render:
    from contracts.videos import VideoRequest
    from video_service.model import open_model
    from video_service.settings import VideoSettings

    settings = VideoSettings(model=str(Path(options.model).resolve()), device=options.device)
    render_into = open_model(settings).engine

    def render(case: Case, fitted: Image.Image, output: Path) -> None:
        png = io.BytesIO()
        fitted.save(png, "PNG")
        request = VideoRequest(
            prompt=case.prompt, image=png.getvalue(), width=width, height=height,
            num_frames=options.frames, fps=FPS, steps=case.steps or options.steps, sampler=options.sampler,
            guidance_scale=options.guidance, seed=case.seed,
        )
        with TemporaryDirectory(dir=output.parent) as own:  # the thumbnail has one name for all clips
            render_into(request, Path(own) / "video.mp4", lambda stage, done, total: None)
            (Path(own) / "video.mp4").replace(output.with_suffix(".mp4"))

    return render


def _diffusers(options: argparse.Namespace, width: int, height: int) -> Render:
    import torch
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

    cuda = options.device != "cpu" and torch.cuda.is_available()
    loaded: Any = WanImageToVideoPipeline.from_pretrained(options.model, image_encoder=None, image_processor=None)
    pipeline = loaded.to("cuda" if cuda else "cpu")
    pipeline.set_progress_bar_config(disable=True)

    def render(case: Case, fitted: Image.Image, output: Path) -> None:
        frames = pipeline(
            image=fitted, prompt=case.prompt, width=width, height=height, num_frames=options.frames,
            num_inference_steps=case.steps or options.steps or 4, guidance_scale=options.guidance or 1.0,
            output_type="np", generator=torch.Generator("cpu").manual_seed(case.seed),
        ).frames[0]
        np.savez_compressed(output.with_suffix(".npz"), frames=(frames * 255).round().clip(0, 255).astype(np.uint8))

    return render


def read_clip(stem: Path) -> Frames:
    """Frames [F, H, W, 3] of `stem`.mp4 or, where diffusers rendered it, `stem`.npz."""
    arrays = stem.with_suffix(".npz")
    if arrays.exists():
        return np.load(arrays)["frames"]
    return _read_mp4(stem.with_suffix(".mp4"))


def _read_mp4(file: Path) -> Frames:
    import av  # a machine that only renders with diffusers may lack it

    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.uint8)


def through_mp4(frames_THWC: Frames) -> Frames:
    """What the service's own MP4 leaves of some frames."""
    from video_service.media.mp4 import Mp4Writer

    height, width = frames_THWC.shape[1:3]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        with Mp4Writer(file, width=width, height=height, fps=FPS) as writer:
            writer.put(frames_THWC)
            writer.finish()
        return _read_mp4(file)


def _cases(options: argparse.Namespace, pictures: list[str]) -> list[Case]:
    motions: list[str] = [*MOTIONS] if options.motions == "all" else options.motions.split(",")
    asks: tuple[Ask, ...] = options.asks
    cases = make_cases(pictures, motions, options.wordings, options.seed, options.language, asks)
    return [case for case in cases if not options.quick or case.asked != "many_steps" or case.picture == pictures[0]]


def _fingerprint(model: str) -> str:
    """Of the checkpoint's weights: clips of other weights are not this checkpoint's."""
    digest = hashlib.sha256()
    for file in sorted(Path(model).rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _setup(options: argparse.Namespace) -> dict[str, Any]:
    told = ("model", "engine", "size", "frames", "steps", "sampler", "guidance")
    setup = {key: getattr(options, key) or "default" for key in told}
    return setup | {"weights": _fingerprint(options.model), "cores": os.cpu_count()}


def _begin(out: Path, setup: dict[str, Any], cases: list[Case]) -> None:
    """Lists the cases in `out/cases.json`; clips that an earlier run made with another setup are removed."""
    for folder in ("clips", "inputs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    listing = out / "cases.json"
    before = json.loads(listing.read_text(encoding="utf-8"))["setup"] if listing.exists() else setup
    if before != setup:
        for clip in (out / "clips").iterdir():
            clip.unlink(missing_ok=True)
    listed = {"setup": setup, "cases": [asdict(case) for case in cases]}
    new = out / f"cases-{os.getpid()}.json"  # other parts may be reading
    new.write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    new.replace(listing)


def _is_done(timing: Path, case: Case) -> bool:
    return timing.exists() and json.loads(timing.read_text(encoding="utf-8")).get("prompt") == case.prompt


def render_all(options: argparse.Namespace) -> None:
    """Renders this part of the cases into `out/clips`; fitted inputs in `out/inputs`; `out/cases.json` lists all."""
    width, height = (int(side) for side in options.size.split("x"))
    photographs = load_photographs(options.pictures, options.names and options.names.split(","), options.photos)
    cases = _cases(options, list(photographs))
    _begin(options.out, _setup(options), cases)
    fitted = {name: ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
              for name, picture in photographs.items()}
    for name, picture in fitted.items():
        picture.save(options.out / "inputs" / f"{name}.png")
    render = (_service if options.engine == "service" else _diffusers)(options, width, height)
    first, parts = (int(number) for number in options.part.split("/"))
    for number, case in enumerate(cases[first - 1::parts], 1):
        timing = options.out / "clips" / f"{case.name}.json"
        if _is_done(timing, case):
            continue  # by an earlier run into this folder
        start = time.perf_counter()
        render(case, fitted[case.picture], options.out / "clips" / case.name)
        seconds = time.perf_counter() - start
        told = {"seconds": seconds, "load": os.getloadavg()[0], "prompt": case.prompt}
        timing.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        print(f"{number} {case.name}: {case.prompt} ({seconds:.1f} s)", flush=True)


def _vision(file: Path) -> tuple[list[Any], list[str]]:
    """Rows of the vision-language part where it was run, and some of its failures as lines of Markdown."""
    if not file.exists():
        return [], []
    from training.evaluation.vl.evaluate import (  # a machine that judges clips only lacks what it needs
        failures,
        load_vision,
    )

    vision = load_vision(file)
    return vision.rows, failures(vision)


def judge_all(options: argparse.Namespace) -> None:
    """Measures what is rendered of `out/cases.json`, writes report and contact sheets, and prints the report."""
    from training.evaluation.measuring import measure
    from training.evaluation.report import contact_sheet, summarise, write_report
    from training.evaluation.warping import unchanged

    out: Path = options.out
    listed: dict[str, Any] = {"setup": {"model": options.model}, "cases": []}
    if (out / "cases.json").exists():
        listed = json.loads((out / "cases.json").read_text(encoding="utf-8"))
    results, rows = [], {}
    for case in (Case(**row) for row in listed["cases"]):
        timing = out / "clips" / f"{case.name}.json"
        if not timing.exists():
            continue
        fitted = np.asarray(Image.open(out / "inputs" / f"{case.picture}.png"))
        frames = read_clip(out / "clips" / case.name)
        told = json.loads(timing.read_text(encoding="utf-8"))
        encoded = through_mp4 if (out / "clips" / f"{case.name}.mp4").exists() else unchanged
        result = measure(case, fitted, frames, told["seconds"], told.get("load"), encoded)
        results.append(result)
        label = f"{case.picture}, {case.asked}: {case.motion}, seen {result.seen}, {result.psnr_db:.1f} dB"
        rows.setdefault(case.picture, []).append((label, fitted, frames))
    for name, picture_rows in rows.items():
        contact_sheet(picture_rows).save(out / f"sheet-{name}.png")
    if rows:  # one row a picture, each with another motion: short enough for a README
        contact_sheet([some[at % len(some)] for at, some in enumerate(rows.values())]).save(out / "sheet.png")
    rows_vision, wrong_vision = _vision(out / "vision.json")
    print(write_report(summarise(results, listed["setup"], rows_vision), out, wrong_vision))


def main() -> None:
    """Renders, then judges."""
    options = _arguments()
    if not options.judge_only and "video" in options.parts:
        render_all(options)
    if not options.judge_only and "vision" in options.parts:
        from training.evaluation.vl.evaluate import evaluate_vision  # a machine that only renders lacks what it needs

        evaluate_vision(options.vl_model, options.out, QUICK_COMPOSITIONS if options.quick else COMPOSITIONS)
    if not options.render_only:
        judge_all(options)


if __name__ == "__main__":
    main()
