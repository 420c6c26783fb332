"""From a published file to what renders.

    stillmotion convert TurboWan2.1-T2V-1.3B-480P.pth --base Wan2.1-T2V-1.3B-Diffusers OUT
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file

from video_service.families.convert.transformer import (
    SLA_FILE,
    SLA_MARK,
    NotConvertible,
    TurboWanWeights,
    read_turbowan,
)
from video_service.families.wan_files import has_experts, has_frame_times, is_wan
from video_service.weights.checkpoint import CheckpointFiles
from web.worker.errors import ModelUnavailable

_WEIGHTS = ("text_encoder", "vae")
_TAKEN = (*_WEIGHTS, "tokenizer", "scheduler")
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; returns the exit status."""
    options = _command_line().parse_args(arguments)
    try:
        weights = convert(options.source, options.base, options.out, topk=options.topk)
    except (NotConvertible, ModelUnavailable, OSError, SafetensorError) as error:
        sys.stderr.write(f"{options.source} was not converted: {str(error).removesuffix('.')}.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return _INTERRUPTED
    if weights.dequantised:
        sys.stdout.write(f"{weights.dequantised} weights in int8 blocks were dequantised to bfloat16.\n")
    sys.stdout.write(f"Wrote {options.out}: {weights.config['num_layers']} blocks, "
                     f"{options.topk:.0%} of the key blocks kept. Render with VIDEO_MODEL={options.out.resolve()}\n")
    return 0


def convert(source: Path, base: Path, out: Path, *, topk: float) -> TurboWanWeights:
    """Write the transformer in `source`, with the other parts of `base`, as the new folder `out`: all of it or nothing.

    `topk`: the share of key blocks that its attention keeps.

    Raises:
        NotConvertible: `source` is no TurboWan2.1 T2V file, `base` does not go with it, or `out` is there already.
        ModelUnavailable: `base` is no complete checkpoint.
        OSError, SafetensorError: the disk.
    """
    if not 0 < topk <= 1:
        raise NotConvertible(f"a topk of {topk} is not above 0 and up to 1")
    if out.exists():
        raise NotConvertible(f"{out} is there already")
    others = _base(base)
    weights = read_turbowan(source)
    _check_fit(weights, others)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.parent / f".{out.name}.{os.getpid()}"  # on the same disk, for the rename
    try:
        _write_transformer(weights, unfinished / "transformer", topk)
        for part in _TAKEN:
            shutil.copytree(base / part, unfinished / part, copy_function=_link_or_copy)
        shutil.copy(base / "model_index.json", unfinished)
        _sync(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _fsync(out.parent)
    return weights


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stillmotion convert", description="A published TurboWan2.1 text-to-video file to a folder that renders.")
    parser.add_argument("source", type=Path, metavar="SOURCE.pth", help="as its authors publish it, -quant or not")
    parser.add_argument("--base", type=Path, required=True, metavar="FOLDER",
                        help="a Wan2.1 T2V in diffusers' layout, for the text encoder, tokenizer, VAE and scheduler")
    parser.add_argument("--topk", type=float, default=0.1,
                        help="share of the key blocks that attention keeps (default 0.1; 0.15 for quality)")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new folder, for VIDEO_MODEL")
    return parser


def _base(folder: Path) -> CheckpointFiles:
    """Raises `ModelUnavailable` for an incomplete one, `NotConvertible` for one of another kind."""
    files = CheckpointFiles(name=folder.name, path=folder, hub_id=None, revision="")
    files.require(
        ("model_index.json", "text_encoder/config.json", "vae/config.json", "scheduler/scheduler_config.json",
         "tokenizer/tokenizer_config.json"), _WEIGHTS)
    kind = files.read_json("model_index.json").get("_class_name")
    if kind != "WanPipeline" or not is_wan(files) or has_experts(files) or has_frame_times(files):
        raise NotConvertible(f"--base {folder} is no Wan2.1 T2V in diffusers' layout")
    return files


def _check_fit(weights: TurboWanWeights, base: CheckpointFiles) -> None:
    text, latents = (base.read_json(f"{part}/config.json") for part in _WEIGHTS)
    for what, own, its in (
        ("text states", weights.config["text_dim"], text.get("d_model")),
        ("latents", weights.config["in_channels"], latents.get("z_dim", 16)),
    ):
        if own != its:
            raise NotConvertible(f"it takes {what} of {own} channels, and those of --base {base.path} have {its}")


def _write_transformer(weights: TurboWanWeights, folder: Path, topk: float) -> None:
    folder.mkdir(parents=True)
    save_torch_state_dict(weights.tensors, folder, filename_pattern="diffusion_pytorch_model{suffix}.safetensors")
    save_file(weights.projections, folder / SLA_FILE)
    config = {"_class_name": "WanTransformer3DModel", **weights.config, SLA_MARK: {"topk": topk}}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    real = Path(source).resolve()  # files of the hub's cache are symbolic links
    try:
        os.link(real, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(real, target)


def _sync(folder: Path) -> None:
    """All of it onto the disk."""
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
