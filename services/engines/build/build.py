"""Build the engines of a shape into the store, each once, whoever else is building; then verify what runs here."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

import torch

from engines.build.refitted import find_base, keep_fingerprint, refitted_plan
from engines.build.source import GraphSource
from engines.build.tensorrt import PlanOptions, build_plan
from engines.export.attention import FORMS
from engines.export.graph import Graph, dtype_of
from engines.export.onnx import MODEL_NAME, ExportFacts, export_graph
from engines.run.sessions import PLAN_NAME, SessionOptions, kept_timings, load_api, open_sessions
from engines.run.trt_protocol import view
from engines.store.building import build_once
from engines.store.cuda import cuda_capability, cuda_name
from engines.store.gpus import check_gpu
from engines.store.manifest import EngineRefused, Manifest, Precision, Recipe, Target
from engines.store.recipes import make_recipe
from engines.store.shape import ShapeT
from engines.store.store import EngineStore
from engines.verify import compare

Say = Callable[[str], None]
Streaming = Literal["auto", "on", "off"]

_TELL_EVERY_S = 5.0
_SHARE_OF_GPU = 0.7  # of its memory, for weights; the rest is for activations and what goes in and out


@dataclass(frozen=True, kw_only=True)  # without slots, for calling X[Shape] sets one attribute more
class Order(Generic[ShapeT]):
    """What to build: a shape's graphs, for one target."""

    shape: ShapeT
    target: Target
    precision: Precision
    capabilities: tuple[str | None, ...]
    """GPUs to build for, such as `SM89`; `(None,)` on a CPU."""
    stream_weights: Streaming = "auto"
    """TensorRT: whether weights may stay in host memory; auto: if those of the shape do not fit into this GPU."""
    refit: bool = False
    """TensorRT: weights can be replaced later."""
    rebuild: bool = False
    wait_s: float = 7200.0
    """For another process that is building the same engine."""


def build(source: GraphSource[ShapeT], store: EngineStore, order: Order[ShapeT], say: Say) -> list[Manifest]:
    """Build what is missing; what is there already is kept, so an interrupted build goes on where it stopped.

    Raises `ExportFailed`, `EngineBuildFailed`, `TensorRTUnavailable`, `StoreBusy`; what was built before stays.
    """
    if (found := _all_there(source, store, order)) is not None:
        say(f"all {len(found)} engines were already built")
        return found
    graphs = source.engine_graphs(order.shape, order.precision, order.target)
    features = _features(graphs, order)
    built: list[Manifest] = []
    for index, graph in enumerate(graphs.values()):
        with store.work_folder() as work:
            workshop = _Workshop(source.id, store, graph, order, features, work, say, f"{index + 1}/{len(graphs)}")
            for capability in order.capabilities:
                built.append(workshop.engine(_recipe(source, order, graph.name, capability)))
    return built


def _all_there(source: GraphSource[ShapeT], store: EngineStore, order: Order[ShapeT]) -> list[Manifest] | None:
    """Every engine where all are there: found without reading any weights. None where one is missing or may be."""
    names = source.names(order.shape)
    if order.rebuild or order.stream_weights == "on" or order.refit or not names:
        return None
    recipes = [_recipe(source, order, name, of) for name in names for of in order.capabilities]
    found = [store.whole(recipe) for recipe in recipes]
    return [manifest for manifest in found if manifest] if all(found) else None


def _recipe(source: GraphSource[ShapeT], order: Order[ShapeT], graph: str, capability: str | None) -> Recipe:
    return make_recipe(
        graph, order.shape.fields(graph), revision=source.revision_of(graph), precision=order.precision,
        target=order.target, capability=capability,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Features:
    stream_weights: bool
    refit: bool


def _features(graphs: Mapping[str, Graph], order: Order[Any]) -> _Features:
    if order.target == "onnx":
        return _Features(stream_weights=False, refit=False)
    stream = order.stream_weights == "on"
    if order.stream_weights == "auto" and torch.cuda.is_available():
        stream = _weight_bytes(graphs) > _SHARE_OF_GPU * torch.cuda.mem_get_info()[1]
    return _Features(stream_weights=stream, refit=order.refit)


def _weight_bytes(graphs: Mapping[str, Graph]) -> int:
    """Of all graphs together; some of them share theirs."""
    tensors = (x for graph in graphs.values() for x in (*graph.module.parameters(), *graph.module.buffers()))
    return sum({x.data_ptr(): x.numel() * x.element_size() for x in tensors}.values())


class _Workshop:
    """Engines of one graph for several GPUs, from one export."""

    def __init__(
        self, model: str, store: EngineStore, graph: Graph, order: Order[Any], features: _Features, work: Path,
        say: Say, place: str,
    ) -> None:
        self._model, self._store, self._graph, self._order = model, store, graph, order
        self._features, self._work, self._say, self._place = features, work, say, place
        self._exported: ExportFacts | None = None

    def engine(self, recipe: Recipe) -> Manifest:
        """Built now, unless it is there."""
        manifest, kept = build_once(
            self._store, recipe, lambda work: self._make(recipe, work), wait_s=self._order.wait_s, enough=self._enough
        )
        made = f"{'refitted' if manifest.refitted_from else 'built'} in {manifest.build_s:.1f} s"
        self._tell(recipe, f"{'already built' if kept else made}, {manifest.num_bytes / 1e6:.1f} MB")
        return manifest

    def _enough(self, found: Manifest) -> bool:
        """A quarantined one too, for building the same again would end the same way."""
        return not self._order.rebuild and found.streams_weights >= self._features.stream_weights \
            and found.refittable >= self._features.refit

    def _make(self, recipe: Recipe, work: Path) -> tuple[Path, Manifest]:
        start = time.monotonic()
        facts = self._export(recipe)
        folder = self._work / "onnx"
        base: Manifest | None = None
        if recipe.target != "onnx":
            folder = work / "engine"
            folder.mkdir()
            base = self._refit(recipe, folder)
            if base is None:
                self._plan(recipe, folder)
        return folder, Manifest(
            model=self._model, recipe=recipe, files={}, nodes=facts.nodes, weights=facts.weights,
            build_s=time.monotonic() - start, streams_weights=self._features.stream_weights,
            refittable=self._features.refit, refitted_from=base.recipe.key if base else None,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _export(self, recipe: Recipe) -> ExportFacts:
        if self._exported is None:
            self._tell(recipe, "exporting")
            folder = self._work / "onnx"
            folder.mkdir()
            self._exported = export_graph(self._graph, folder, attention=FORMS[self._order.target])
        return self._exported

    def _refit(self, recipe: Recipe, folder: Path) -> Manifest | None:
        """Of a LoRA: the plan from the engine without it, which is returned; None where that cannot be."""
        if self._order.rebuild or self._features != _Features(stream_weights=False, refit=False):
            return None
        base = find_base(self._store, recipe)
        if base is None:
            return None
        self._tell(recipe, f"replacing the weights of {base.recipe.key}")
        try:
            plan = refitted_plan(self._store, base, self._work / "onnx" / MODEL_NAME)
        except (EngineRefused, ValueError) as error:
            self._tell(recipe, f"they cannot be replaced: {error}")
            return None
        (folder / PLAN_NAME).write_bytes(view(plan))
        return base

    def _plan(self, recipe: Recipe, folder: Path) -> None:
        self._tell(recipe, "building")
        rtx = recipe.target == "tensorrt-rtx"
        options = PlanOptions(
            # TensorRT for data centres builds for the GPU at hand, RTX for any.
            capability=recipe.capability if rtx else None,
            # RTX compiles its kernels when an engine first runs, so its builder times nothing.
            timings=None if rtx else kept_timings(self._store, recipe), progress=self._progress(recipe),
            stream_weights=self._features.stream_weights, refit=self._features.refit,
        )
        plan = build_plan(load_api(recipe), self._work / "onnx" / MODEL_NAME, options)
        (folder / PLAN_NAME).write_bytes(view(plan))
        if options.refit:
            keep_fingerprint(self._work / "onnx" / MODEL_NAME, folder)

    def _progress(self, recipe: Recipe) -> Callable[[str, float], None]:
        told_s = time.monotonic()

        def tell(phase: str, fraction: float) -> None:
            nonlocal told_s
            if time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                self._tell(recipe, f"building, {fraction:.0%} ({phase})")

        return tell

    def _tell(self, recipe: Recipe, what: str) -> None:
        self._say(f"{self._place} {self._graph.name} {recipe.capability or 'cpu'}: {what}")


def verify(source: GraphSource[ShapeT], store: EngineStore, manifests: Sequence[Manifest], say: Say) -> list[Manifest]:
    """Compare each engine that this machine can run with torch, and record it: verified, or quarantined."""
    results: list[Manifest] = []
    for shape, group in _by_shape(source, manifests).items():
        for manifest in group:
            place = f"{manifest.recipe.graph} {manifest.recipe.capability or 'cpu'}"
            try:
                _check_can_run(manifest.recipe, source)
                result = _verify_one(store, manifest, shape, source)
            except EngineRefused as error:
                say(f"{place}: not verified, {error}")
                results.append(manifest)
                continue
            check = result.check
            figures = f"relative L2 {check.relative_l2:.1e}, max {check.max_error:.1e}, " \
                f"{check.engine_s:.3f} s, torch {check.torch_s:.3f} s" if check else ""
            say(f"{place}: {result.state} {result.reason or figures}")
            results.append(result)
    return results


def _by_shape(source: GraphSource[ShapeT], manifests: Sequence[Manifest]) -> dict[ShapeT, list[Manifest]]:
    """Engines under a shape that has them; those of another checkpoint are left out."""
    groups: dict[ShapeT, list[Manifest]] = {}
    for manifest in manifests:
        shape = source.shape_of(manifest.recipe)
        if shape is not None:
            groups.setdefault(shape, []).append(manifest)
    return groups


def _check_can_run(recipe: Recipe, source: GraphSource[Any]) -> None:
    if recipe.target == "onnx" and source.device != "cpu":
        raise EngineRefused("ONNX engines are for the CPU, and the device is cuda")
    check_gpu(recipe, cuda_capability() if source.device == "cuda" else None)


def _verify_one(store: EngineStore, manifest: Manifest, shape: ShapeT, source: GraphSource[ShapeT]) -> Manifest:
    """Raises `EngineRefused` where this machine has too little memory: that says nothing of the engine."""
    name, precision = manifest.recipe.graph, manifest.recipe.precision
    kinds = (dtype_of(precision, manifest.recipe.target), torch.float32, getattr(torch, source.dtype))
    graph, reference, served = (source.graphs(shape, dtype)[name] for dtype in kinds)
    options = SessionOptions(device=torch.device(source.device), threads=torch.get_num_threads())
    try:
        check = compare(
            graph, reference, served, lambda: open_sessions(store, [manifest], options)[name], precision=precision,
            device=options.device, gpu=cuda_name() if source.device == "cuda" else None,
        )
    except EngineRefused as error:
        if isinstance(error.__cause__, MemoryError):
            raise
        return store.quarantine(manifest, str(error))
    return store.record(manifest, check)
