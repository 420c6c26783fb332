"""`python -m video_service.engines build|list|verify`, which `stillmotion engines` runs."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from video_service.catalog import ModelSource, find_model
from video_service.checkpoint_folder import ModelUnavailable
from video_service.device import Device, cuda_capability, cuda_name
from video_service.engine_store.choice import Situation, find_sets
from video_service.engine_store.gpus import RTX_RUNS_ON, name_gpu
from video_service.engine_store.manifest import EngineRefused, Manifest, Precision, Target
from video_service.engine_store.recipes import library_version, revision_of
from video_service.engine_store.shape import ClipShape
from video_service.engine_store.store import EngineStore, StoreBusy
from video_service.lora import short
from video_service.model_card import TEMPORAL_SCALE
from video_service.settings import VideoSettings

if TYPE_CHECKING:
    from video_service.engines.buildable import Buildable

RTX_CAPABILITIES = ("86", "89", "120")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = command_line().parse_args(arguments)
    # The choice of an engine is what this prepares: it must not fail for want of one.
    wish = {"engine": "torch"} | ({"model": options.model} if options.model else {})
    settings = VideoSettings().model_copy(update=wish)
    store = EngineStore(settings.engine_store_dir.resolve())
    try:
        return {"build": _build, "list": _list, "verify": _verify}[options.command](options, settings, store)
    except (ModelUnavailable, EngineRefused, StoreBusy, ValueError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(f"engines need {error.name}: pip install 'stillmotion[engines]'; in compose set ENGINE_TARGET "
                     "and build the image again")
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped")


def _build(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    from graphs.export import ExportFailed
    from video_service.engines.build import Order, build, verify
    from video_service.engines.buildable import find_buildable
    from video_service.engines.tensorrt import EngineBuildFailed
    from video_service.engines.trt_api import TensorRTUnavailable

    source = find_buildable(settings)
    target: Target = _target_for(source.device) if options.target == "auto" else options.target
    own: Precision = "fp32" if target == "onnx" else "bf16"
    precision: Precision = own if options.precision == "auto" else options.precision
    if target == "onnx" and precision == "bf16":
        raise ValueError("ONNX Runtime has no bfloat16 kernels on a CPU: use --precision fp32 or fp16")
    capabilities = _capabilities(target, options.sm)
    failed = 0
    for shape in _shapes(options, source):
        order = Order(
            shape=shape, target=target, precision=precision, capabilities=capabilities,
            stream_weights=options.stream_weights, refit=options.refit, rebuild=options.rebuild,
        )
        _say(f"{source.id} {short(source.revision)} {shape} {target} {precision}")
        try:
            built = build(source, store, order, _say)
        except (ExportFailed, EngineBuildFailed, TensorRTUnavailable) as error:
            return _fail(f"{shape}: {error}")
        unchecked = [manifest for manifest in built if not _checked_here(manifest, source)]
        failed |= _verdict(verify(source, store, unchecked, _say), source)
    return failed


def _target_for(device: Device) -> Target:
    """What is installed and runs here; RTX where both do, for its engines are built quickly and anywhere."""
    if device == "cpu":
        return "onnx"
    if library_version("tensorrt-rtx") and cuda_capability() in RTX_RUNS_ON:
        return "tensorrt-rtx"
    return "tensorrt"


def _shapes(options: argparse.Namespace, source: "Buildable") -> list[ClipShape]:
    """The clips to build for: those named, else the model's own default. Raises `ValueError`."""
    tokens, info = source.max_sequence_length, getattr(source, "info", None)
    if options.clips:
        return [ClipShape.parse_clip(clip, tokens) for clip in options.clips.split(",")]
    if info is not None:
        return [ClipShape.parse(options.size or info.sizes[0], options.frames or info.num_frames.default, tokens)]
    if not options.size or not options.frames:
        raise ValueError(f"{source.id} is not served, so it has no sizes of its own: give --size and --frames")
    return [ClipShape.parse(options.size, options.frames, tokens, getattr(source, "temporal_scale", TEMPORAL_SCALE))]


def _capabilities(target: Target, sm: str) -> tuple[str | None, ...]:
    if target == "onnx":
        return (None,)
    here = cuda_capability()
    if target == "tensorrt":
        if here is None:
            raise EngineRefused("TensorRT builds on the GPU that it builds for, and there is none here; "
                                "--target tensorrt-rtx builds for RTX GPUs anywhere")
        return (here,)
    if sm != "here":
        return tuple(f"SM{number.strip()}" for number in sm.split(","))
    if here not in RTX_RUNS_ON:
        raise EngineRefused(f"TensorRT-RTX does not run on {name_gpu(here)}; name others, such as --sm 89,120, or "
                            "use --target tensorrt")
    return (here,)


def _checked_here(manifest: Manifest, source: "Buildable") -> bool:
    """Whether it was verified on this kind of GPU: its numbers and its times."""
    gpu = cuda_name() if source.device == "cuda" else None
    return manifest.state == "verified" and manifest.check is not None and manifest.check.gpu == gpu


def _list(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    manifests, refused = store.manifests()
    for manifest in manifests:
        recipe = manifest.recipe
        shape = " ".join(f"{name}={value}" for name, value in recipe.shape.items())
        _say(f"{recipe.key}  {manifest.model}  {recipe.graph}  {shape}  {recipe.target} {recipe.precision} "
             f"{recipe.capability or 'cpu'}  {manifest.num_bytes / 1e6:.1f} MB  {manifest.state}"
             + (f": {manifest.reason}" if manifest.reason else "")
             + (f"  refitted from {manifest.refitted_from}" if manifest.refitted_from else ""))
    for name, reason in refused.items():
        _say(f"{name}  refused: {reason}")
    if not manifests and not refused:
        _say(f"no engines in {store.root}")
    _say_sets(settings, store)
    return 0


def _say_sets(settings: VideoSettings, store: EngineStore) -> None:
    """Which whole sets this deployment's model could run on, here and now."""
    source = find_model(settings)
    for target in ("onnx", "tensorrt-rtx", "tensorrt"):
        try:
            sets, refused = find_sets(target, store.root, _situation(source))
        except EngineRefused as error:
            _say(f"{target}: {error}")
            continue
        for found in sets:
            _say(f"{target}: {found.shape} {found.precision} ready, {found.speed_up:.2f}x torch on "
                 f"{found.measured_on or 'the CPU'}")
        for reason in refused:
            _say(f"{target}: {reason}")


def _situation(source: ModelSource) -> Situation:
    on_gpu = source.device == "cuda"
    return Situation(
        revision=source.revision, text_tokens=source.max_sequence_length, steps=source.info.steps.default,
        device=source.device, capability=cuda_capability() if on_gpu else None, gpu=cuda_name() if on_gpu else None,
    )


def _verify(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    from video_service.engines.build import verify
    from video_service.engines.buildable import find_buildable

    source = find_buildable(settings)
    mine = [
        found for found in store.manifests()[0]
        if found.recipe.revision == revision_of(found.recipe.graph, source.revision)
    ]
    if not mine:
        raise EngineRefused(f"no engines of {source.id} in {store.root}; run `stillmotion engines build`")
    return _verdict(verify(source, store, mine, _say), source)


def _verdict(manifests: Sequence[Manifest], source: "Buildable") -> int:
    """An engine for another machine need not be verified here."""
    here = cuda_capability() if source.device == "cuda" else None
    bad = [
        f"{manifest.recipe.graph} {manifest.state}" for manifest in manifests
        if manifest.state == "quarantined" or (manifest.state == "built" and manifest.recipe.capability == here)
    ]
    return _fail(", ".join(bad)) if bad else 0


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="stillmotion engines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("build", "build and verify what is missing of some clip shapes"),
                       ("list", "what is in the store"), ("verify", "compare engines with torch")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--model", help="checkpoint folder or hub id; default VIDEO_MODEL")
        if name == "build":
            _add_build_options(command)
    return parser


def _add_build_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", help="WIDTHxHEIGHT; default the model's own")
    command.add_argument("--frames", type=int, help="4k+1; default the model's own")
    command.add_argument("--clips", help="instead of both: WIDTHxHEIGHTxFRAMES, several with commas")
    command.add_argument("--target", choices=("auto", "onnx", "tensorrt", "tensorrt-rtx"), default="auto",
                         help="auto: what is installed and runs on this machine")
    command.add_argument("--precision", choices=("auto", *get_args(Precision)), default="auto",
                         help="auto: bf16, of onnx fp32")
    command.add_argument("--sm", default=",".join(RTX_CAPABILITIES),
                         help="GPUs for tensorrt-rtx, such as 89,120, or `here`; default %(default)s")
    command.add_argument("--stream-weights", choices=("auto", "on", "off"), default="auto",
                         help="TensorRT: weights may stay in host memory; auto: if they do not fit this GPU")
    command.add_argument("--refit", action="store_true", help="TensorRT: weights can be replaced, as for a LoRA")
    command.add_argument("--rebuild", action="store_true", help="build also what is there")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
