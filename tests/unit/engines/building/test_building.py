"""Builders that race, and builders that are killed: an engine is built once, is whole, and nothing stays behind."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.store.building import build_once
from engines.store.manifest import Manifest, Recipe
from engines.store.store import EngineStore

CONTEXT = multiprocessing.get_context("spawn")
GRAPHS = ("text_encoder", "vae_encoder", "transformer")
SIZE = 200_000


def recipe_of(graph: str) -> Recipe:
    return Recipe(
        revision="a1", graph=graph, shape={"width": 64}, precision="fp32", target="onnx", capability=None,
        libraries={"torch": "2.11.0"}, export_format=1,
    )


def make_slowly(work: Path, recipe: Recipe, diary: Path, pause_s: float) -> tuple[Path, Manifest]:
    """As a builder would: a file that grows, line by line; what was begun is written to `diary`."""
    with diary.open("a") as file:
        file.write(f"{recipe.graph}\n")
    built = work / "built"
    built.mkdir()
    with (built / "engine.plan").open("wb") as file:
        for _ in range(10):
            file.write(recipe.graph[:1].encode() * (SIZE // 10))
            file.flush()
            time.sleep(pause_s)
    manifest = Manifest(model="m", recipe=recipe, files={}, nodes=1, weights=1, build_s=0, peak_memory_bytes=0)
    return built, manifest


def build_all(root: str, diary: str, pause_s: float) -> None:
    for graph in GRAPHS:
        recipe = recipe_of(graph)
        build_once(
            EngineStore(Path(root)), recipe, lambda work, of=recipe: make_slowly(work, of, Path(diary), pause_s),
            wait_s=60, enough=lambda _: True,
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


def begun(diary: Path) -> list[str]:
    return diary.read_text().split() if diary.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_whole(root: Path, graphs: tuple[str, ...]) -> None:
    found, refused = EngineStore(root).manifests()
    assert refused == {}
    assert {manifest.recipe.graph for manifest in found} == set(graphs)
    for manifest in found:
        assert EngineStore(root).check_files(manifest).joinpath("engine.plan").stat().st_size == SIZE


def test_builders_that_race_build_every_engine_once_and_all_of_them_end_well(root: Path, diary: Path) -> None:
    builders = [CONTEXT.Process(target=build_all, args=(str(root), str(diary), 0.01)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert sorted(begun(diary)) == sorted(GRAPHS)
    assert_whole(root, GRAPHS)
    assert list((root / "tmp").iterdir()) == []


def test_a_killed_build_goes_on_where_it_stopped(root: Path, diary: Path) -> None:
    """SIGKILL in the middle of the second engine: the first is kept, half an engine is never seen, nothing stays."""
    first = CONTEXT.Process(target=build_all, args=(str(root), str(diary), 0.1))
    first.start()
    wait_for(lambda: begun(diary) == list(GRAPHS[:2]))
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join(30)
    assert_whole(root, GRAPHS[:1])
    assert len(list((root / "tmp").iterdir())) == 2  # a folder and its claim
    build_all(str(root), str(diary), 0.0)
    assert begun(diary) == [*GRAPHS[:2], *GRAPHS[1:]]
    assert_whole(root, GRAPHS)
    assert list((root / "tmp").iterdir()) == []


def test_who_waits_for_a_builder_that_is_killed_builds_in_its_place(root: Path, diary: Path) -> None:
    first = CONTEXT.Process(target=build_all, args=(str(root), str(diary), 0.5))
    first.start()
    wait_for(lambda: begun(diary) == list(GRAPHS[:1]))
    second = CONTEXT.Process(target=build_all, args=(str(root), str(diary), 0.0))
    second.start()
    time.sleep(0.5)
    assert begun(diary) == list(GRAPHS[:1])  # it waits
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join(30)
    second.join(30)
    assert second.exitcode == 0
    assert begun(diary) == [GRAPHS[0], *GRAPHS]
    assert_whole(root, GRAPHS)


def test_the_work_of_a_living_builder_is_not_swept_away(root: Path) -> None:
    store = EngineStore(root)
    with store.work_folder() as mine, store.work_folder() as other:
        assert mine.is_dir()
        assert mine != other
    assert list((root / "tmp").iterdir()) == []


def test_an_engine_that_is_built_again_replaces_the_old_one_whole(root: Path, diary: Path) -> None:
    build_all(str(root), str(diary), 0.0)
    recipe = recipe_of(GRAPHS[0])
    _, kept = build_once(
        EngineStore(root), recipe, lambda work: make_slowly(work, recipe, diary, 0.0), wait_s=1, enough=lambda _: False
    )
    assert not kept
    assert_whole(root, GRAPHS)
    assert list((root / "tmp").iterdir()) == []
