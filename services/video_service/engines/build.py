"""Build a clip's engines into the store, each once, whoever else is building; then verify what runs here."""

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from graphs.export import MODEL_NAME, ExportFacts, export_graph
from graphs.graph import DTYPES, Graph
from video_service.catalog import ModelSource
from video_service.device import cuda_capability
from video_service.engine_store.manifest import EngineRefused, Manifest, Precision, Recipe, Target
from video_service.engine_store.recipes import make_recipe
from video_service.engine_store.shape import ClipShape
from video_service.engine_store.store import EngineStore
from video_service.engines.clips import ClipGraphs
from video_service.engines.sessions import PLAN_NAME, SessionOptions, load_api, open_sessions
from video_service.engines.tensorrt import build_engine
from video_service.engines.verify import compare

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build: a clip shape's graphs, for one target."""

    shape: ClipShape
    target: Target
    precision: Precision
    capabilities: tuple[str | None, ...]
    """GPUs to build for, such as `SM89`; `(None,)` on a CPU."""
    rebuild: bool = False
    wait_s: float = 7200.0
    """For another process that is building the same engine."""


def build(source: ModelSource, store: EngineStore, order: Order, say: Say) -> list[Manifest]:
    """Build what is missing; what is there already is kept, so an interrupted build goes on where it stopped.

    Raises `ExportFailed`, `EngineBuildFailed`, `TensorRTUnavailable`, `StoreBusy`; what was built before stays.
    """
    graphs = ClipGraphs(source).graphs(order.shape, DTYPES[order.precision])
    built: list[Manifest] = []
    for index, graph in enumerate(graphs.values()):
        recipes = [_recipe(source, order, graph.name, capability) for capability in order.capabilities]
        for manifest, kept in _build_graph(source.id, store, graph, recipes, order):
            built.append(manifest)
            what = "already built" if kept else f"built in {manifest.build_s:.1f} s"
            place = manifest.recipe.capability or "cpu"
            say(f"{index + 1}/{len(graphs)} {graph.name} {place}: {what}, {manifest.num_bytes / 1e6:.1f} MB")
    return built


def _recipe(source: ModelSource, order: Order, graph: str, capability: str | None) -> Recipe:
    return make_recipe(
        graph, order.shape, revision=source.revision, precision=order.precision, target=order.target,
        capability=capability,
    )


def _build_graph(
    model: str, store: EngineStore, graph: Graph, recipes: Sequence[Recipe], order: Order
) -> Iterator[tuple[Manifest, bool]]:
    """One engine for each recipe, from one export; true beside those that were there."""
    with store.work_folder() as work:
        exported: tuple[Path, ExportFacts] | None = None
        for recipe in recipes:
            with store.lock(recipe, order.wait_s):
                if (found := _present(store, recipe)) is not None and not order.rebuild:
                    yield found, True
                    continue
                start = time.monotonic()
                exported = exported or _export(graph, work / "onnx")
                built = _make(recipe, exported[0], work / recipe.key)
                manifest = Manifest(
                    model=model, recipe=recipe, files={}, nodes=exported[1].nodes, weights=exported[1].weights,
                    build_s=time.monotonic() - start,
                    peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                )
                yield store.put(built, manifest), False


def _present(store: EngineStore, recipe: Recipe) -> Manifest | None:
    """The engine, whole; a quarantined one too, for building the same again would end the same way."""
    try:
        manifest = store.find(recipe)
        store.check_files(manifest)
    except EngineRefused:
        return None
    return manifest


def _export(graph: Graph, folder: Path) -> tuple[Path, ExportFacts]:
    folder.mkdir()
    return folder, export_graph(graph, folder)


def _make(recipe: Recipe, exported: Path, place: Path) -> Path:
    """A folder with the engine's files: the ONNX graph itself, or what TensorRT makes of it."""
    if recipe.target == "onnx":
        return exported
    place.mkdir()
    # TensorRT for data centres builds for the GPU at hand, RTX for any.
    capability = recipe.capability if recipe.target == "tensorrt-rtx" else None
    plan = build_engine(load_api(recipe), exported / MODEL_NAME, capability=capability)
    (place / PLAN_NAME).write_bytes(plan)
    return place


def verify(source: ModelSource, store: EngineStore, manifests: Sequence[Manifest], say: Say) -> list[Manifest]:
    """Compare each engine that this machine can run with torch, and record it: verified, or quarantined."""
    clips = ClipGraphs(source)
    device = torch.device(source.device)
    results: list[Manifest] = []
    for shape, group in _by_clip(source, manifests).items():
        for manifest in group:
            recipe = manifest.recipe
            if reason := _cannot_run(recipe, source):
                say(f"{recipe.graph} {recipe.capability or 'cpu'}: not verified, {reason}")
                results.append(manifest)
                continue
            result = _verify_one(store, manifest, clips, shape, device, source)
            check = result.check
            figures = f"relative L2 {check.relative_l2:.1e}, max {check.max_error:.1e}, " \
                f"{check.engine_s:.3f} s, torch {check.torch_s:.3f} s" if check else ""
            say(f"{recipe.graph}: {result.state} {result.reason or figures}")
            results.append(result)
    return results


def _by_clip(source: ModelSource, manifests: Sequence[Manifest]) -> dict[ClipShape, list[Manifest]]:
    """Engines under a clip shape that has them; those of another checkpoint are left out."""
    groups: dict[ClipShape, list[Manifest]] = {}
    clip = {"width": 64, "height": 64, "num_frames": 1, "text_tokens": source.max_sequence_length}
    for manifest in manifests:
        if manifest.recipe.revision == source.revision:
            # A graph is fixed to some of these; the others may be anything.
            groups.setdefault(ClipShape(**(clip | manifest.recipe.shape)), []).append(manifest)
    return groups


def _cannot_run(recipe: Recipe, source: ModelSource) -> str | None:
    if recipe.target == "onnx":
        return None if source.device == "cpu" else "ONNX engines are for the CPU, and the device is cuda"
    here = cuda_capability() if source.device == "cuda" else None
    return None if recipe.capability == here else f"this machine has {here or 'no GPU'}"


def _verify_one(
    store: EngineStore, manifest: Manifest, clips: ClipGraphs, shape: ClipShape, device: torch.device,
    source: ModelSource,
) -> Manifest:
    name, precision = manifest.recipe.graph, manifest.recipe.precision
    kinds = (DTYPES[precision], torch.float32, getattr(torch, source.dtype))
    graph, reference, served = (clips.graphs(shape, dtype)[name] for dtype in kinds)
    for part in (reference, served):
        part.module.to(device)
    try:
        options = SessionOptions(device=device, threads=torch.get_num_threads())
        session = open_sessions(store, [manifest], options)[name]
        check = compare(graph, reference, served, session, precision=precision, device=device)
    except EngineRefused as error:
        return store.quarantine(manifest, str(error))
    return store.record(manifest, check)
