"""`build`, `list` and `verify`, for the checkpoint of whichever service's command this is."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from engines.store.cuda import cuda_capability, cuda_name
from engines.store.gpus import RTX_RUNS_ON, name_gpu
from engines.store.manifest import EngineRefused, Manifest, Precision, Target
from engines.store.recipes import library_version
from engines.store.revisions import short
from engines.store.shape import Shape
from engines.store.store import EngineStore, StoreBusy
from web.command import say

if TYPE_CHECKING:
    from engines.build.source import GraphSource

RTX_CAPABILITIES = ("86", "89", "120")


class Model(Protocol):
    """The checkpoint that `--model` and a service's environment name. Finding it out reads no weights."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def device(self) -> Literal["cpu", "cuda"]: ...

    def open(self) -> "GraphSource[Any]":
        """Its graphs; each call reads weights of its own."""
        ...

    def shapes(self, options: argparse.Namespace) -> Sequence[Shape]:
        """Those to build for. Raises `ValueError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Whose command it is."""

    prog: str
    model_help: str
    add_shape_options: Callable[[argparse.ArgumentParser], None]
    store: Callable[[], EngineStore]
    find: Callable[[str | None], Model]
    """By what `--model` says. Raises one of `refusals`."""
    ready: Callable[[str | None, EngineStore], Iterable[str]]
    """What of the store this deployment could run on, here and now, a line each. Raises one of `refusals`."""
    refusals: tuple[type[Exception], ...]


def run(service: Service, arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = command_line(service).parse_args(arguments)
    try:
        return {"build": _build, "list": _list, "verify": _verify}[options.command](options, service, service.store())
    except (*service.refusals, EngineRefused, StoreBusy, ValueError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(f"engines need {error.name}: pip install 'stillmotion[engines]'; in compose set ENGINE_TARGET "
                     "and build the image again")
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped")


def _build(options: argparse.Namespace, service: Service, store: EngineStore) -> int:
    from engines.build.build import Order, build, verify
    from engines.build.tensorrt import EngineBuildFailed
    from engines.export.onnx import ExportFailed
    from engines.run.trt_api import TensorRTUnavailable

    model = service.find(options.model)
    target: Target = _target_for(model.device) if options.target == "auto" else options.target
    own: Precision = "fp32" if target == "onnx" else "bf16"
    precision: Precision = own if options.precision == "auto" else options.precision
    if target == "onnx" and precision == "bf16":
        raise ValueError("ONNX Runtime has no bfloat16 kernels on a CPU: use --precision fp32 or fp16")
    capabilities = _capabilities(target, options.sm)
    failed = 0
    for shape in model.shapes(options):
        order = Order(
            shape=shape, target=target, precision=precision, capabilities=capabilities,
            stream_weights=options.stream_weights, refit=options.refit, rebuild=options.rebuild,
        )
        say(f"{model.id} {short(model.revision)} {shape} {target} {precision}")
        try:
            built = build(model.open(), store, order, say)
        except (ExportFailed, EngineBuildFailed, TensorRTUnavailable) as error:
            return _fail(f"{shape}: {error}")
        unchecked = [manifest for manifest in built if not _checked_here(manifest, model)]
        failed |= _verdict(verify(model.open(), store, unchecked, say), model)
    return failed


def _target_for(device: str) -> Target:
    """What is installed and runs here; RTX where both do, for its engines are built quickly and anywhere."""
    if device == "cpu":
        return "onnx"
    if library_version("tensorrt-rtx") and cuda_capability() in RTX_RUNS_ON:
        return "tensorrt-rtx"
    return "tensorrt"


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


def _checked_here(manifest: Manifest, model: Model) -> bool:
    """Whether it was verified on this kind of GPU: its numbers and its times."""
    gpu = cuda_name() if model.device == "cuda" else None
    return manifest.state == "verified" and manifest.check is not None and manifest.check.gpu == gpu


def _list(options: argparse.Namespace, service: Service, store: EngineStore) -> int:
    manifests, refused = store.manifests()
    for manifest in manifests:
        recipe = manifest.recipe
        shape = " ".join(f"{name}={value}" for name, value in recipe.shape.items())
        say(f"{recipe.key}  {manifest.model}  {recipe.graph}  {shape}  {recipe.target} {recipe.precision} "
             f"{recipe.capability or 'cpu'}  {manifest.num_bytes / 1e6:.1f} MB  {manifest.state}"
             + (f": {manifest.reason}" if manifest.reason else "")
             + (f"  refitted from {manifest.refitted_from}" if manifest.refitted_from else ""))
    for name, reason in refused.items():
        say(f"{name}  refused: {reason}")
    if not manifests and not refused:
        say(f"no engines in {store.root}")
    for line in service.ready(options.model, store):
        say(line)
    return 0


def _verify(options: argparse.Namespace, service: Service, store: EngineStore) -> int:
    from engines.build.build import verify

    model = service.find(options.model)
    source = model.open()
    mine = [found for found in store.manifests()[0] if source.shape_of(found.recipe) is not None]
    if not mine:
        raise EngineRefused(f"no engines of {model.id} in {store.root}; run `stillmotion engines build`")
    return _verdict(verify(source, store, mine, say), model)


def _verdict(manifests: Sequence[Manifest], model: Model) -> int:
    """An engine for another machine need not be verified here."""
    here = cuda_capability() if model.device == "cuda" else None
    bad = [
        f"{manifest.recipe.graph} {manifest.state}" for manifest in manifests
        if manifest.state == "quarantined" or (manifest.state == "built" and manifest.recipe.capability == here)
    ]
    return _fail(", ".join(bad)) if bad else 0


def command_line(service: Service) -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog=service.prog, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("build", "build and verify what is missing of some shapes"),
                       ("list", "what is in the store"), ("verify", "compare engines with torch")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--model", help=service.model_help)
        if name == "build":
            service.add_shape_options(command)
            _add_build_options(command)
    return parser


def _add_build_options(command: argparse.ArgumentParser) -> None:
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


def _fail(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    return 1
