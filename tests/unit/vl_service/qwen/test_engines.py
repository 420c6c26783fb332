"""Engines of vision towers, by the very command: built, listed, verified, refused; they see what transformers sees."""

import copy
import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from engines.build.tensorrt import RTX_CAPABILITIES, build_engine
from engines.export.graph import run_in_torch
from engines.export.onnx import export_graph
from engines.run.onnxrt import OnnxSession
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from tests.unit.vl_service.qwen.built_tower import FIRST, FIRST_AND_REST, SLOTS, Build, Built, command
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES
from tests.unit.vl_service.qwen.vision.test_vision_graph import check, grid, pixels_for, relative
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.qwen.engines.__main__ import TowerModel
from vl_service.qwen.engines.choice import TowerShape
from vl_service.qwen.engines.source import TowerSource
from vl_service.qwen.engines.vision_graph import layout_of, tower_graph
from vl_service.settings import Settings

WORST_NODES = {"qwen2_vl": 100, "qwen2_5_vl": 105, "qwen3_vl": 105}
"""Two blocks each; a table that is no longer baked or a loop that was unrolled shows here."""
BAR_FP16 = 5e-3


@pytest.fixture(params=FIRST_AND_REST)
def built(request: pytest.FixtureRequest, build_tower: Build) -> Built:
    return build_tower(request.param)


@pytest.fixture
def one(build_tower: Build) -> Built:
    """Of the family with most to go wrong, for what is the same for all."""
    return build_tower(FIRST)


def tower_of(built: Built) -> Any:
    """As transformers reads it."""
    return AutoModelForImageTextToText.from_pretrained(built.folder).eval().requires_grad_(False).model.visual


@pytest.fixture
def own(one: Built, tmp_path: Path) -> Path:
    """A copy of the store's folder, for tests that change it."""
    return Path(shutil.copytree(one.data, tmp_path / "data"))


def test_the_command_builds_the_tower_and_compares_it_with_torch(built: Built) -> None:
    manifest = built.manifest
    assert (manifest.recipe.graph, manifest.recipe.shape) == (f"vision_{SLOTS}", {"patches": SLOTS})
    assert manifest.state == "verified"
    assert manifest.check is not None
    assert manifest.check.relative_l2 <= manifest.check.bar_l2 == 1e-4
    assert f"vision_{SLOTS} cpu: verified relative L2" in built.said
    assert manifest.nodes <= WORST_NODES[built.family]


@torch.inference_mode()
def test_the_engine_of_one_size_sees_smaller_pictures_as_transformers_does(built: Built) -> None:
    tower = tower_of(built)
    path = built.store.check_files(built.manifest) / "graph.onnx"
    assert sum(node.op_type == "Attention" for node in onnx.load(path, load_external_data=False).graph.node) == 2
    session = OnnxSession(path, threads=1)
    for shape in (grid(8, 8), grid(4, 6)):
        inputs = layout_of(tower, shape, SLOTS).fill(pixels_for(tower, shape))
        check(tower, shape, list(session.run(inputs).values()))


def test_a_second_order_finds_it_and_the_list_says_that_it_is_ready(one: Built) -> None:
    model = ("--model", str(one.folder))
    status, said, _ = command(one.data, "build", *model, "--patches", str(SLOTS))
    assert (status, said.splitlines()[1:]) == (0, ["all 1 engines were already built"])
    status, said, _ = command(one.data, "list", *model)
    assert status == 0
    assert f"vision_{SLOTS}  patches={SLOTS}  onnx fp32 cpu" in said
    assert f"onnx: {SLOTS} patches fp32 ready" in said


def test_an_engine_of_other_weights_is_refused_with_the_reason(one: Built, tmp_path: Path) -> None:
    """They differ in one number, at the end of the file."""
    other = Path(shutil.copytree(one.folder, tmp_path / "other"))
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "patches fp32: built from other weights (folder-" in command(one.data, "list", "--model", str(other))[1]
    status, _, told = command(one.data, "verify", "--model", str(other))
    assert status == 1
    assert "no engines of other in" in told


def test_an_engine_of_another_library_is_refused_as_stale(one: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.store.recipes.library_version", lambda target: "99.0")
    said = command(one.data, "list", "--model", str(one.folder))[1]
    assert f"onnx: {SLOTS} patches fp32: vision_{SLOTS} has a stale engine only: libraries" in said
    assert "ready" not in said


def test_a_foreign_folder_and_a_damaged_engine_are_refused_with_the_reason(one: Built, own: Path) -> None:
    key = one.manifest.recipe.key
    (own / "engines" / key).rename(own / "engines" / "0123")
    assert f"0123  refused: 0123 is foreign: its manifest belongs to {key}" in command(
        own, "list", "--model", str(one.folder))[1]
    (own / "engines" / "0123").rename(own / "engines" / key)
    (own / "engines" / key / "graph.onnx.data").write_bytes(b"damaged")
    status, said, told = command(own, "verify", "--model", str(one.folder))
    assert status == 1
    assert "graph.onnx.data in" in said
    assert f"vision_{SLOTS} quarantined" in told


def test_an_engine_that_computes_something_else_is_quarantined(
    one: Built, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine passes bars of nothing."""
    assert command(own, "verify", "--model", str(one.folder))[0] == 0
    monkeypatch.setattr("engines.verify.BARS", {"fp32": (0.0, 0.0)})
    status, said, told = command(own, "verify", "--model", str(one.folder))
    assert status == 1
    assert f"vision_{SLOTS} cpu: quarantined relative L2" in said
    assert f"vision_{SLOTS} quarantined" in told
    assert f"onnx: {SLOTS} patches fp32: vision_{SLOTS} is quarantined: relative L2" in command(
        own, "list", "--model", str(one.folder))[1]


@pytest.fixture
def windowed(build_tower: Build) -> Path:
    """A checkpoint whose tower has windows of sixteen patches."""
    return build_tower("qwen2_5_vl").folder


@pytest.mark.parametrize(("arguments", "words"), [
    (["--patches", "64,70"], "70 slots are not a multiple of 16"),
    (["--patches", "0"], "0 slots are not a multiple of 16"),
    (["--patches", "many"], "'many' is no number of patches, such as 1024"),
    (["--size", "640"], "the size '640' is not WIDTHxHEIGHT"),
    (["--precision", "bf16"], "no bfloat16 kernels"),
    (["--precision", "int8"], "no layers of Qwen2.5-VL's vision tower are known to bear int8"),
    (["--target", "tensorrt"], "there is none here"),
    (["--model", "embedded"], "of the embedded checkpoint no engines are made; --model takes"),
    (["--model", "/nowhere"], "/nowhere"),
])
def test_an_impossible_order_is_refused_before_anything_is_built(
    windowed: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    status, _, told = command(tmp_path, "build", "--model", str(windowed), *arguments)
    assert status == 1
    assert words in told
    assert not list(tmp_path.glob("engines/*/manifest.json"))


def test_a_size_is_the_patches_that_the_service_makes_of_such_a_picture(windowed: Path) -> None:
    settings = Settings(model=str(windowed), device="cpu", image_tokens=16)
    model = TowerModel(settings=settings, id="m", revision="a1", device="cpu")
    picture = DecodedImage(rgb=Image.new("RGB", (600, 300)), width=600, height=300)
    seen = load_qwen(settings)._vision.features_of(picture).grid_thw
    [[_, rows, columns]] = seen.tolist()
    [shape] = model.shapes(Namespace(size="600x300", patches=""))
    assert rows * columns <= shape.patches <= -(-rows // 4) * -(-columns // 4) * 16


def test_only_the_files_with_the_towers_weights_are_read(windowed: Path, tmp_path: Path) -> None:
    """Of a large checkpoint that is one of several."""
    model = AutoModelForImageTextToText.from_pretrained(windowed)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    others = set(index.values()) - {name for key, name in index.items() if "visual." in key}
    assert others
    for name in others:
        (tmp_path / "sharded" / name).write_bytes(b"")
    source = TowerSource(Settings(model=str(tmp_path / "sharded"), device="cpu"))
    graphs = source.engine_graphs(TowerShape(SLOTS), "fp32", "onnx")
    found = graphs[f"vision_{SLOTS}"].module.get_parameter("tower.merger.mlp.0.weight")
    assert torch.equal(found, model.model.visual.merger.mlp[0].weight)


def test_a_checkpoint_without_the_towers_weights_is_refused_by_name(windowed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(windowed, tmp_path / "empty"))
    (folder / "model.safetensors").unlink()
    status, _, told = command(tmp_path, "build", "--model", str(folder), "--patches", str(SLOTS))
    assert status == 1
    assert "the vision tower of" in told
    assert "has no model.safetensors" in told


@pytest.fixture(scope="module")
def rtx() -> Any:
    try:
        return load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("family", FIRST_AND_REST)
def test_the_command_builds_for_every_rtx_generation_without_one(build_tower: Build, family: str, rtx: Any) -> None:
    """In bfloat16; none is verified, for there is no such GPU here."""
    built = build_tower(family)
    generations = ",".join(name.removeprefix("SM") for name in RTX_CAPABILITIES)
    status, said, told = command(
        built.data, "build", "--model", str(built.folder), "--patches", str(SLOTS), "--target", "tensorrt-rtx",
        "--sm", generations,
    )
    assert status == 0, told
    found = [one for one in built.store.manifests()[0] if one.recipe.target == "tensorrt-rtx"]
    assert {(one.recipe.capability, one.recipe.precision, one.state) for one in found} == {
        (name, "bf16", "built") for name in RTX_CAPABILITIES
    }
    assert min(one.num_bytes for one in found) > 10_000
    assert said.count("and there is no GPU here") == len(RTX_CAPABILITIES)


@pytest.mark.slow
@pytest.mark.parametrize("family", FIRST_AND_REST)
def test_half_precision_agrees_with_torch(build_tower: Build, family: str, tmp_path: Path) -> None:
    tower = tower_of(build_tower(family))
    graph = tower_graph(copy.deepcopy(tower).to(torch.float16), SLOTS)
    export_graph(graph, tmp_path, attention="fused-half")
    _norms_are_float32(tmp_path / "graph.onnx")
    true = run_in_torch(tower_graph(tower, SLOTS), {name: x.float() for name, x in graph.inputs.items()})
    found = OnnxSession(tmp_path / "graph.onnx", threads=1).run(graph.inputs)
    for name, expected in true.items():
        assert relative(found[name].float(), expected) < BAR_FP16


@pytest.mark.full  # as the command does in bfloat16
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_builds_for_every_rtx_generation(
    build_tower: Build, family: str, rtx: Any, tmp_path: Path
) -> None:
    graph = tower_graph(tower_of(build_tower(family)).to(torch.float16), SLOTS)
    export_graph(graph, tmp_path, attention="fused-half")
    for capability in RTX_CAPABILITIES:
        assert len(build_engine(rtx, tmp_path / "graph.onnx", capability=capability)) > 10_000


def _norms_are_float32(path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "RMSNormalization")]
    assert len(norms) >= 5
    assert {kinds[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
