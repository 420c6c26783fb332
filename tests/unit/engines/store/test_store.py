"""The store gives out an engine whole, verified and made from the same things, or says why it does not."""

import multiprocessing
import shutil
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from engines.store.manifest import Check, EngineRefused, Manifest, Recipe
from engines.store.store import EngineStore, StoreBusy

RECIPE = Recipe(
    revision="a1", graph="transformer", shape={"width": 64}, precision="fp32", target="onnx", capability=None,
    libraries={"torch": "2.11.0", "onnxruntime": "1.31.1"}, export_format=1,
)


def check(relative_l2: float) -> Check:
    return Check(
        relative_l2=relative_l2, max_error=relative_l2, bar_l2=1e-4, bar_max=1e-3, engine_s=0.1, torch_s=0.2,
        device="cpu",
    )


def put(store: EngineStore, recipe: Recipe = RECIPE) -> Manifest:
    manifest = Manifest(
        model="m", recipe=recipe, files={}, nodes=1, weights=1, build_s=0.0, peak_memory_bytes=0
    )
    with store.work_folder() as work:
        built = work / "built"
        built.mkdir()
        (built / "graph.onnx").write_bytes(b"graph")
        return store.put(built, manifest)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "store")


def test_an_engine_is_usable_once_verified_and_not_before(store: EngineStore) -> None:
    manifest = put(store)
    with pytest.raises(EngineRefused, match=r"never verified"):
        store.usable(RECIPE)
    store.record(manifest, check(1e-6))
    assert store.usable(RECIPE).state == "verified"


@pytest.mark.parametrize("error", [1e-3, float("inf"), float("nan")])
def test_an_engine_that_fails_its_bars_is_quarantined_with_the_figures(store: EngineStore, error: float) -> None:
    store.record(put(store), check(error))
    with pytest.raises(EngineRefused, match=r"quarantined: relative L2 .* \(bar 1e-04\)"):
        store.usable(RECIPE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "b2"}, "stale engine only: revision a1 instead of b2"),
        ({"libraries": {"torch": "2.13.0", "onnxruntime": "1.31.1"}}, "stale engine only: libraries"),
        ({"export_format": 2}, "export_format 1 instead of 2"),
        ({"precision": "fp16"}, "precision fp32 instead of fp16"),
        ({"shape": {"width": 96}}, "has no onnx engine for"),
        ({"target": "tensorrt-rtx", "capability": "SM89"}, "has no tensorrt-rtx engine"),
    ],
)
def test_any_other_recipe_finds_nothing_and_learns_what_differs(
    store: EngineStore, change: dict[str, object], words: str
) -> None:
    put(store)
    with pytest.raises(EngineRefused, match=words):
        store.find(RECIPE.model_copy(update=change))


def test_a_file_of_another_content_or_none_is_refused(store: EngineStore) -> None:
    manifest = put(store)
    path = store.folder(RECIPE) / "graph.onnx"
    path.write_bytes(b"grapg")
    with pytest.raises(EngineRefused, match=r"graph\.onnx .* is corrupt"):
        store.check_files(manifest)
    path.unlink()
    with pytest.raises(EngineRefused, match=r"is missing"):
        store.check_files(manifest)


def test_an_engine_under_anothers_name_is_foreign(store: EngineStore) -> None:
    put(store)
    other = RECIPE.model_copy(update={"revision": "b2"})
    shutil.copytree(store.folder(RECIPE), store.folder(other))
    with pytest.raises(EngineRefused, match=r"foreign"):
        store.find(other)
    found, refused = store.manifests()
    assert [manifest.recipe for manifest in found] == [RECIPE]
    assert list(refused) == [other.key]


def test_a_damaged_manifest_is_refused_and_named(store: EngineStore) -> None:
    put(store)
    (store.folder(RECIPE) / "manifest.json").write_text("{")
    with pytest.raises(EngineRefused, match=r"cannot be read"):
        store.find(RECIPE)
    assert list(store.manifests()[1]) == [RECIPE.key]


def test_half_a_build_is_never_seen(store: EngineStore) -> None:
    def fail_halfway() -> None:
        with store.work_folder() as work:
            (work / "graph.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert store.manifests() == ([], {})
    assert list((store.root / "tmp").iterdir()) == []


def test_two_processes_never_build_the_same_engine_at_once(store: EngineStore) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(store.root), held, done))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(StoreBusy, match=r"being built by another process"), store.lock(RECIPE, wait_s=0.2):
            pass
        with store.lock(RECIPE.model_copy(update={"graph": "vae_encoder"}), wait_s=0):
            pass  # another engine is nobody's business
        done.set()
        with store.lock(RECIPE, wait_s=30):
            pass
    finally:
        done.set()
        other.join(30)
    assert other.exitcode == 0


def _hold(root: str, held: Event, done: Event) -> None:
    with EngineStore(Path(root)).lock(RECIPE, wait_s=10):
        held.set()
        done.wait(30)
