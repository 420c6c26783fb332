"""Building for a LoRA where the engine without it is there: TensorRT replaces weights, over the recorded surfaces."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from engines.build.build import Order, build
from engines.build.refitted import find_base
from engines.export.graph import Graph
from engines.export.onnx import MODEL_NAME, ExportFacts, export_graph
from engines.export.weights import fingerprint, read_weights
from engines.store.manifest import Check, Manifest
from engines.store.store import MANIFEST_NAME, EngineStore
from tests.trt_surface.fake import FakeTensorRT, Script
from tests.trt_surface.surface import read_surface
from tests.unit.engines.conftest import SHAPE
from video_service.engines.clips import ClipGraphs
from video_service.model import ModelSource
from video_service.weights.lora import Lora
from web.durable import replace_file

PASSED = Check(
    relative_l2=0, max_error=0, bar_l2=1, bar_max=1, engine_s=1, torch_s=2, device="cuda", gpu="H100",
)
ORDER = Order(shape=SHAPE, target="tensorrt", precision="fp32", capabilities=("SM90",))
KINDS = {torch.float32: "FLOAT", torch.int64: "INT64"}


def small(change: float) -> Graph:
    """Two layers; `change` is added to the second one's weight."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(16, 24), nn.SiLU(), nn.Linear(24, 16)).eval().requires_grad_(False)
    module.get_parameter("2.weight").add_(change)
    return Graph(name="transformer", module=module, inputs={"x": torch.ones(1, 5, 16)}, outputs=("y",))


class Exports:
    """Real exports, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts: dict[float, ExportFacts] = {}

    def export(self, graph: Graph, folder: Path, **_: Any) -> ExportFacts:
        """In place of `export_graph`."""
        here, plain = (of.module.get_parameter("2.weight")[0, 0] for of in (graph, small(0.0)))
        change = round(float(here - plain), 3)
        shutil.copytree(self.at(change), folder, dirs_exist_ok=True)
        return self._facts[change]

    def at(self, change: float) -> Path:
        """The folder of graph.onnx."""
        folder = self._folder / str(change)
        if change not in self._facts:
            folder.mkdir()
            self._facts[change] = export_graph(small(change), folder, attention="plain")
        return folder


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def weights(exports: Exports) -> Mapping[str, torch.Tensor]:
    """Of the graph without the LoRA, by their names in the file."""
    return read_weights(exports.at(0.0) / MODEL_NAME)


@pytest.fixture
def api(exports: Exports, weights: Mapping[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    return installed(monkeypatch, "tensorrt-11", exports, weights)


def installed(
    monkeypatch: pytest.MonkeyPatch, surface: str, exports: Exports, weights: Mapping[str, torch.Tensor]
) -> Any:
    """A TensorRT on a machine with an H100, and a checkpoint of one graph, of which a LoRA changes one layer."""
    script = Script(weights={name: (x.numel(), KINDS[x.dtype]) for name, x in weights.items()})
    fake = FakeTensorRT(read_surface(surface), script)
    for module in ("build", "refitted"):
        monkeypatch.setattr(f"engines.build.{module}.load_api", lambda recipe: fake)
    monkeypatch.setattr("engines.build.refitted.cuda_capability", lambda: "SM90")

    def graphs(clips: Any, *_: object) -> dict[str, Graph]:
        return {"transformer": small(0.5 if clips._source.files.lora else 0.0)}

    monkeypatch.setattr("engines.build.build.export_graph", exports.export)
    monkeypatch.setattr(ClipGraphs, "engine_graphs", graphs)
    return fake


@pytest.fixture(scope="module")
def base_store(
    exports: Exports, weights: Mapping[str, torch.Tensor], tiny_source: ModelSource,
    tmp_path_factory: pytest.TempPathFactory,
) -> EngineStore:
    """The refittable engine without the LoRA, verified."""
    store = EngineStore(tmp_path_factory.mktemp("base") / "engines")
    with pytest.MonkeyPatch.context() as patch:
        installed(patch, "tensorrt-11", exports, weights)
        [manifest] = build(ClipGraphs(tiny_source), store, replace(ORDER, refit=True), print)
    store.record(manifest, PASSED)
    return store


@pytest.fixture
def store(base_store: EngineStore, tmp_path: Path) -> EngineStore:
    return EngineStore(Path(shutil.copytree(base_store.root, tmp_path / "engines")))


@pytest.fixture
def lora_source(tiny_source: ModelSource) -> ModelSource:
    lora = Lora(path=Path("style.safetensors"), scale=1.0, digest="0123456789abcdef")
    files = tiny_source.files
    return replace(tiny_source, files=replace(files, lora=lora, revision=lora.revision(files.revision)))


def built(source: ModelSource, store: EngineStore, order: Order = ORDER) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    [manifest] = build(ClipGraphs(source), store, order, said.append)
    return manifest, said


def plan_of(store: EngineStore, manifest: Manifest) -> bytes:
    return (store.check_files(manifest) / "engine.plan").read_bytes()


def only_base(store: EngineStore) -> Manifest:
    return next(found for found in store.manifests()[0] if found.refittable)


def test_a_lora_replaces_the_weights_that_it_changes_and_nothing_is_built(
    api: Any, store: EngineStore, lora_source: ModelSource
) -> None:
    base = only_base(store)
    manifest, said = built(lora_source, store)
    [(_, given)] = api.refitted.items()
    changed = small(0.5).module.get_parameter("2.weight")
    assert sorted(given.tolist()) == sorted(changed.flatten().tolist())
    assert given.tolist() in (changed.flatten().tolist(), changed.T.flatten().tolist())
    assert api.called("Builder", "build_serialized_network") == []
    assert plan_of(store, manifest) == b"plan, refitted"
    assert plan_of(store, base) == b"plan"
    assert (manifest.refitted_from, manifest.refittable, manifest.state) == (base.recipe.key, False, "built")
    assert manifest.recipe.revision == lora_source.files.revision != base.recipe.revision
    assert any(line.endswith(f"replacing the weights of {base.recipe.key}") for line in said)
    assert "refitted in" in said[-1]
    assert "already built" in built(lora_source, store)[1][-1]


@pytest.mark.parametrize("name", ["tensorrt-10", "tensorrt-rtx"])
def test_the_other_libraries_take_the_same_calls(
    exports: Exports, weights: Mapping[str, torch.Tensor], store: EngineStore, lora_source: ModelSource, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = installed(monkeypatch, name, exports, weights)
    manifest, _ = built(lora_source, store)
    assert manifest.refitted_from == only_base(store).recipe.key
    assert len(fake.refitted) == 1


def test_weights_that_tensorrt_computes_with_together_are_given_together(
    api: Any, store: EngineStore, lora_source: ModelSource, weights: Mapping[str, torch.Tensor]
) -> None:
    other = next(name for name, x in weights.items() if x.numel() == 24)  # the first layer's bias
    api.script.missing = [other]
    assert built(lora_source, store)[0].refitted_from is not None
    assert api.refitted[other].tolist() == weights[other].tolist()
    assert len(api.refitted) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {"other": (1, "FLOAT")}}, "the engine has no weight"),
        ({"weights": {}}, "this engine's weights are fixed"),
        ({"serializes": False}, "did not serialise"),
        ({"loads": False, "says": ["no room"]}, "no room"),
    ],
)
def test_what_cannot_be_refitted_is_told_and_built_from_the_graph(
    api: Any, store: EngineStore, lora_source: ModelSource, changes: dict[str, Any], words: str
) -> None:
    for name, value in changes.items():
        setattr(api.script, name, value)
    manifest, said = built(lora_source, store)
    assert any("cannot be replaced" in line and words in line for line in said), said
    assert manifest.refitted_from is None
    assert plan_of(store, manifest) == b"plan"
    assert "built in" in said[-1]


def test_a_graph_that_differs_in_more_than_weights_is_built(
    api: Any, exports: Exports, store: EngineStore, lora_source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(graph: Graph, folder: Path, **_: Any) -> ExportFacts:
        facts = exports.export(graph, folder)
        model = onnx.load(folder / MODEL_NAME, load_external_data=False)
        next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Tanh"
        (folder / MODEL_NAME).write_bytes(model.SerializeToString())
        return facts

    monkeypatch.setattr("engines.build.build.export_graph", export)
    manifest, said = built(lora_source, store)
    assert any("differ in more than their weights" in line for line in said)
    assert manifest.refitted_from is None
    assert api.refitted == {}


@pytest.mark.parametrize("wish", [{"refit": True}, {"rebuild": True}, {"stream_weights": "on"}])
def test_who_asks_for_more_than_a_refit_gives_gets_a_build(
    api: Any, store: EngineStore, lora_source: ModelSource, wish: dict[str, Any]
) -> None:
    manifest, _ = built(lora_source, store, replace(ORDER, **wish))
    assert manifest.refitted_from is None
    assert len(api.called("Builder", "build_serialized_network")) == 1


def test_only_a_verified_and_refittable_engine_of_this_gpu_is_refitted(
    api: Any, base_store: EngineStore, tiny_source: ModelSource, lora_source: ModelSource, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(change: dict[str, Any], **recipe: Any) -> bool:
        """Whether a base is found in a store whose engine was changed so."""
        store = EngineStore(Path(shutil.copytree(base_store.root, tmp_path / str(len(list(tmp_path.iterdir()))))))
        base = only_base(store)
        wanted = base.recipe.model_copy(update={"revision": lora_source.files.revision} | recipe)
        text = base.model_copy(update=change).model_dump_json()
        replace_file(store.folder(base.recipe) / MANIFEST_NAME, text.encode())
        return find_base(store, wanted) is not None

    assert found({})
    assert not found({"state": "quarantined"})
    assert not found({"refittable": False})
    assert not found({"streams_weights": True})
    assert not found({}, precision="int8")
    assert not found({}, revision=tiny_source.files.revision)  # without a LoRA there is nothing to replace
    assert not found({}, libraries={"tensorrt": "11.9"})
    monkeypatch.setattr("engines.build.refitted.cuda_capability", lambda: "SM80")
    assert not found({})


def test_exports_of_one_graph_are_alike_and_differ_by_the_weights_that_were_changed(
    exports: Exports, tmp_path: Path
) -> None:
    export_graph(small(0.0), tmp_path, attention="plain")
    plain, again, changed = (fingerprint(at / MODEL_NAME) for at in (exports.at(0.0), tmp_path, exports.at(0.5)))
    assert plain.changed(again) == []
    names = plain.changed(changed)
    assert names is not None
    [name] = names
    stored, true = read_weights(exports.at(0.5) / MODEL_NAME)[name], small(0.5).module.get_parameter("2.weight")
    assert torch.equal(stored, true if stored.shape == true.shape else true.T)
