"""From published files to what renders.

    stillmotion convert Wan2.1-T2V-1.3B OUT                          # the folder as Wan's authors publish it
    stillmotion convert TurboWan2.1-T2V-1.3B-480P.pth --base Wan2.1-T2V-1.3B-Diffusers OUT
    stillmotion convert TurboWan2.2-I2V-A14B-high-720P.pth --low TurboWan2.2-I2V-A14B-low-720P.pth --base … OUT
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from video_service.families.convert.files import NotConvertible
from video_service.families.convert.folder import link_part, new_folder, write_json, write_transformer
from video_service.families.convert.original import others_index, write_others
from video_service.families.convert.transformer import TransformerWeights, read_transformer
from video_service.families.wan.files import has_frame_times, is_wan
from video_service.weights.checkpoint import CheckpointFiles
from web.command import say
from web.worker.errors import ModelUnavailable

_WEIGHTS = ("text_encoder", "vae")
_TAKEN = (*_WEIGHTS, "tokenizer", "scheduler")
_BOUNDARY = {"t2v": 0.875, "i2v": 0.9}
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one model; returns the exit status."""
    options = _command_line().parse_args(arguments)
    try:
        if options.source.is_dir():
            experts = convert_original(options.source, options.out)
        elif options.base is None:
            raise NotConvertible("a transformer alone needs the other parts of a Wan: name its folder as --base")
        else:
            experts = convert(options.source, options.base, options.out, low=options.low, topk=options.topk)
    except (NotConvertible, ModelUnavailable, OSError, SafetensorError) as error:
        sys.stderr.write(f"{options.source} was not converted: {str(error).removesuffix('.')}.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return _INTERRUPTED
    if dequantised := sum(weights.dequantised for weights in experts.values()):
        say(f"{dequantised} weights in int8 blocks were dequantised to bfloat16, and are kept for "
            "VIDEO_QUANT_LINEAR=int8.")
    blocks = " and ".join(str(weights.config["num_layers"]) for weights in experts.values())
    sparse = f", {options.topk:.0%} of the key blocks kept" if experts["transformer"].projections else ""
    say(f"Wrote {options.out}: {blocks} blocks{sparse}. Render with VIDEO_MODEL={options.out.resolve()}")
    return 0


def convert(
    source: Path, base: Path, out: Path, *, low: Path | None = None, topk: float
) -> dict[str, TransformerWeights]:
    """Write the transformer in `source`, with the other parts of `base`, as the new folder `out`: all of it or nothing.

    `low`: of a model with two experts, the one for low noise. `topk`: the share of key blocks that attention keeps.
    Returns the transformers by folder.

    Raises:
        NotConvertible: `source` is no TurboWan file, `low` or `base` do not go with it, or `out` is there already.
        ModelUnavailable: `base` is no complete checkpoint.
        OSError, SafetensorError: the disk.
    """
    if not 0 < topk <= 1:
        raise NotConvertible(f"a topk of {topk} is not above 0 and up to 1")
    others = _base(base)
    with new_folder(out) as folder:
        experts = _experts(source, low)
        _check_fit(experts["transformer"], others)
        for name, weights in experts.items():
            write_transformer(weights, folder / name, topk)
        for part in _TAKEN:
            link_part(base / part, folder / part)
        write_json(folder / "model_index.json", _model_index(experts, others.read_json("model_index.json")))
    return experts


def convert_original(source: Path, out: Path) -> dict[str, TransformerWeights]:
    """Write the Wan in the folder `source`, as its authors publish it, as the new folder `out`: all of it or nothing.

    Raises:
        NotConvertible: a file of it is missing, damaged, or of another kind; or `out` is there already.
        OSError, SafetensorError: the disk.
    """
    high, low = source / "high_noise_model", source / "low_noise_model"
    paths = {"transformer": high, "transformer_2": low} if high.is_dir() or low.is_dir() else {"transformer": source}
    with new_folder(out) as folder:
        experts = {name: _named(path) for name, path in paths.items()}
        first = experts["transformer"]
        sees = "image_dim" in first.config
        for name, weights in experts.items():
            write_transformer(weights, folder / name, topk=1.0)
        write_others(source, folder, sees=sees)
        _check_fit(first, CheckpointFiles(name=out.name, path=folder, hub_id=None, revision=""))
        index = {"_class_name": "WanImageToVideoPipeline" if first.takes_image else "WanPipeline",
                 **others_index(sees=sees), **{name: ["diffusers", "WanTransformer3DModel"] for name in experts}}
        if len(experts) > 1:
            index["boundary_ratio"] = _BOUNDARY["i2v" if first.takes_image else "t2v"]
        write_json(folder / "model_index.json", index)
    return experts


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stillmotion convert", description="Published files to a folder that renders: a Wan2.1 or Wan2.2 A14B "
        "as its authors publish it, TurboWan2.1 text-to-video, or TurboWan2.2 image-to-video from its two files.")
    parser.add_argument("source", type=Path, metavar="SOURCE",
                        help="Wan's folder, or a TurboWan .pth, -quant or not; of TurboWan2.2, the `high` one")
    parser.add_argument("--low", type=Path, metavar="LOW.pth", help="of TurboWan2.2, the `low` one")
    parser.add_argument("--base", type=Path, metavar="FOLDER",
                        help="of TurboWan: a Wan2.1 or Wan2.2 A14B in diffusers' layout, for all other parts")
    parser.add_argument("--topk", type=float, default=0.1,
                        help="share of the key blocks that attention keeps (default 0.1; 0.15 for quality; 1: dense)")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new folder, for VIDEO_MODEL")
    return parser


def _experts(source: Path, low: Path | None) -> dict[str, TransformerWeights]:
    """By folder. Raises `NotConvertible` where flags and files disagree."""
    if low is not None and "low" in source.name.lower() and "high" in low.name.lower():
        raise NotConvertible(f"{source.name} and --low {low.name} are the wrong way round, by their names")
    first = _turbo(source)
    if low is None:
        if first.takes_image:
            raise NotConvertible("it is an image-to-video model, TurboWan2.2 I2V, one of its two experts: give the "
                                 "high-noise file first and the low-noise one as --low")
        return {"transformer": first}
    if not first.takes_image:
        raise NotConvertible("it is TurboWan2.1 text-to-video, which has one transformer: leave --low out")
    second = _turbo(low)
    different = sorted(name for name in first.config if first.config[name] != second.config.get(name))
    if different:
        raise NotConvertible(f"--low {low.name} is of another model: it differs in {', '.join(different)}")
    return {"transformer": first, "transformer_2": second}


def _named(source: Path) -> TransformerWeights:
    try:
        return read_transformer(source)
    except NotConvertible as error:
        raise NotConvertible(f"{source.name}: {error}") from error


def _turbo(source: Path) -> TransformerWeights:
    weights = _named(source)
    if not weights.projections:
        raise NotConvertible(f"{source.name}: it has no proj_l: a plain Wan model, which has no sparse-linear "
                             "attention. Convert its authors' whole folder, or take it in diffusers' layout")
    return weights


def _base(folder: Path) -> CheckpointFiles:
    """Raises `ModelUnavailable` for an incomplete one, `NotConvertible` for one of another kind."""
    files = CheckpointFiles(name=folder.name, path=folder, hub_id=None, revision="")
    files.require(
        ("model_index.json", "text_encoder/config.json", "vae/config.json", "scheduler/scheduler_config.json",
         "tokenizer/tokenizer_config.json"), _WEIGHTS)
    if not is_wan(files) or has_frame_times(files):
        raise NotConvertible(f"--base {folder} is no Wan2.1 or Wan2.2 A14B in diffusers' layout")
    return files


def _check_fit(weights: TransformerWeights, base: CheckpointFiles) -> None:
    text, latents = (base.read_json(f"{part}/config.json") for part in _WEIGHTS)
    for what, own, its in (
        ("text states", weights.config["text_dim"], text.get("d_model")),
        ("latents", weights.config["out_channels"], latents.get("z_dim", 16)),
    ):
        if own != its:
            raise NotConvertible(f"it takes {what} of {own} channels, and those of --base {base.path} have {its}")


def _model_index(experts: Mapping[str, TransformerWeights], base: Mapping[str, Any]) -> dict[str, Any]:
    image = experts["transformer"].takes_image
    index: dict[str, Any] = {"_class_name": "WanImageToVideoPipeline" if image else "WanPipeline"}
    index |= {name: base[name] for name in ("_diffusers_version", *_TAKEN) if name in base}
    index |= {name: ["diffusers", "WanTransformer3DModel"] for name in experts}
    return index | ({"boundary_ratio": _BOUNDARY["i2v"]} if len(experts) > 1 else {})
