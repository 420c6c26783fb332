"""`python -m video_service.engines build|list|verify`, which `stillmotion engines` runs."""

import argparse
import sys
from collections.abc import Sequence

from video_service.catalog import ModelSource, find_model
from video_service.checkpoint_folder import ModelUnavailable
from video_service.device import cuda_capability
from video_service.engine_store.choice import Situation, find_sets
from video_service.engine_store.manifest import EngineRefused, Manifest
from video_service.engine_store.shape import ClipShape
from video_service.engine_store.store import EngineStore, StoreBusy
from video_service.settings import VideoSettings

RTX_CAPABILITIES = ("86", "89", "120")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    # The choice of an engine is what this prepares: it must not fail for want of one.
    wish = {"engine": "torch"} | ({"model": options.model} if options.model else {})
    settings = VideoSettings().model_copy(update=wish)
    store = EngineStore(settings.engine_store_dir.resolve())
    try:
        return {"build": _build, "list": _list, "verify": _verify}[options.command](options, settings, store)
    except (ModelUnavailable, EngineRefused, StoreBusy, ValueError) as error:
        return _fail(str(error))


def _build(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    from graphs.export import ExportFailed
    from video_service.engines.build import Order, build, verify
    from video_service.engines.tensorrt import EngineBuildFailed
    from video_service.engines.trt_api import TensorRTUnavailable

    source = find_model(settings)
    size = options.size or source.info.sizes[0]
    frames = options.frames or source.info.num_frames.default
    order = Order(
        shape=ClipShape.parse(size, frames, source.max_sequence_length), target=options.target,
        precision=options.precision or ("fp32" if options.target == "onnx" else "bf16"),
        capabilities=_capabilities(options), rebuild=options.rebuild,
    )
    if order.target == "onnx" and order.precision == "bf16":
        raise ValueError("ONNX Runtime has no bfloat16 kernels on a CPU: use --precision fp32 or fp16")
    _say(f"{source.id} {source.revision[:12]} {order.shape} {order.target} {order.precision}")
    try:
        built = build(source, store, order, _say)
    except (ExportFailed, EngineBuildFailed, TensorRTUnavailable) as error:
        return _fail(str(error))
    return _verdict(verify(source, store, built, _say))


def _capabilities(options: argparse.Namespace) -> tuple[str | None, ...]:
    if options.target == "onnx":
        return (None,)
    if options.target == "tensorrt-rtx":
        return tuple(f"SM{number.strip()}" for number in options.sm.split(","))
    here = cuda_capability()
    if here is None:
        raise EngineRefused("TensorRT builds on the GPU that it builds for, and there is none here; "
                            "--target tensorrt-rtx builds for RTX GPUs anywhere")
    return (here,)


def _list(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    manifests, refused = store.manifests()
    for manifest in manifests:
        recipe = manifest.recipe
        shape = " ".join(f"{name}={value}" for name, value in recipe.shape.items())
        _say(f"{recipe.key}  {manifest.model}  {recipe.graph}  {shape}  {recipe.target} {recipe.precision} "
             f"{recipe.capability or 'cpu'}  {manifest.num_bytes / 1e6:.1f} MB  {manifest.state}"
             + (f": {manifest.reason}" if manifest.reason else ""))
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
            _say(f"{target}: {found.shape} {found.precision} ready, {found.speed_up:.2f}x torch")
        for reason in refused:
            _say(f"{target}: {reason}")


def _situation(source: ModelSource) -> Situation:
    return Situation(
        revision=source.revision, text_tokens=source.max_sequence_length, steps=source.info.steps.default,
        device=source.device, capability=cuda_capability() if source.device == "cuda" else None,
    )


def _verify(options: argparse.Namespace, settings: VideoSettings, store: EngineStore) -> int:
    from video_service.engines.build import verify

    source = find_model(settings)
    mine = [found for found in store.manifests()[0] if found.recipe.revision == source.revision]
    if not mine:
        raise EngineRefused(f"no engines of {source.id} in {store.root}; run `stillmotion engines build`")
    return _verdict(verify(source, store, mine, _say))


def _verdict(manifests: Sequence[Manifest]) -> int:
    failed = [manifest.recipe.graph for manifest in manifests if manifest.state == "quarantined"]
    return _fail(f"quarantined: {', '.join(failed)}") if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stillmotion engines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("build", "build the engines of one clip shape"), ("list", "what is in the store"),
                       ("verify", "compare engines with torch")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--model", help="checkpoint folder or hub id; default VIDEO_MODEL")
        if name == "build":
            command.add_argument("--size", help="WIDTHxHEIGHT; default the model's own")
            command.add_argument("--frames", type=int, help="4k+1; default the model's own")
            command.add_argument("--target", choices=("onnx", "tensorrt", "tensorrt-rtx"), default="onnx")
            command.add_argument("--precision", choices=("fp32", "fp16", "bf16"))
            command.add_argument("--sm", default=",".join(RTX_CAPABILITIES), help="GPUs for tensorrt-rtx")
            command.add_argument("--rebuild", action="store_true")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
