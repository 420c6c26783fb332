"""Vision towers as graphs compute what transformers' towers compute, for every picture that fits."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from engines.onnxrt import OnnxSession
from engines.tensorrt import build_engine
from engines.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from graphs.export import export_graph
from graphs.graph import DTYPES, run_in_torch
from vl_service.qwen_tower import PictureTooLarge, TowerGraph, layout_of, slots_needed, tower_graph

from .tiny_qwen import FAMILIES, tiny_tower

SLOTS = 144
BAR_FP32, BAR_FP16 = 1e-4, 5e-3
WORST_NODES = {"qwen2_vl": 100, "qwen2_5_vl": 105, "qwen3_vl": 105}
"""Two blocks each; a table that is no longer baked or a loop that was unrolled shows here."""


@pytest.fixture(scope="module", params=FAMILIES)
def tower(request: pytest.FixtureRequest) -> Any:
    return tiny_tower(request.param)


def grid(rows: int, columns: int) -> torch.Tensor:
    return torch.tensor([[1, rows, columns]])


def pixels_for(tower: Any, shape: torch.Tensor) -> torch.Tensor:
    size = tower.patch_embed.proj.weight[0].numel()
    return torch.randn(int(shape.prod()), size, generator=torch.Generator().manual_seed(3))


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    assert found.shape == true.shape
    return float((found.double() - true.double()).norm() / true.double().norm())


def check(tower: Any, shape: torch.Tensor, found: Sequence[torch.Tensor]) -> None:
    """Compare a graph's outputs with transformers' for the same picture, in its order."""
    true = tower(pixels_for(tower, shape), shape)
    layout, unit = layout_of(tower, shape, SLOTS), tower.spatial_merge_size**2
    expected = [true.pooler_output, *(getattr(true, "deepstack_features", None) or ())]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert relative(layout.read(one, unit), other) < BAR_FP32


@torch.inference_mode()
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (6, 4), (8, 8), (10, 10), (2, 30)])
def test_any_picture_that_fits_gives_transformers_features(tower: Any, size: tuple[int, int]) -> None:
    """Windows that are cut by an edge, pictures of one window, and slots that stay empty included."""
    shape = grid(*size)
    layout = layout_of(tower, shape, SLOTS)
    outputs = TowerGraph(tower)(*layout.fill(pixels_for(tower, shape)).values())
    check(tower, shape, outputs)


@torch.inference_mode()
def test_a_graph_of_one_size_runs_smaller_pictures_in_onnx_runtime(tower: Any, tmp_path: Path) -> None:
    graph = tower_graph(tower, SLOTS)
    facts = export_graph(graph, tmp_path)
    assert facts.nodes <= WORST_NODES[tower.config.model_type.removesuffix("_vision")]
    assert facts.operators["Attention"] == 2
    session = OnnxSession(tmp_path / "graph.onnx", threads=1)
    for shape in (grid(8, 8), grid(4, 6)):
        inputs = layout_of(tower, shape, SLOTS).fill(pixels_for(tower, shape))
        check(tower, shape, list(session.run(inputs).values()))


def test_a_picture_that_does_not_fit_is_refused_with_what_it_needs(tower: Any) -> None:
    assert slots_needed(tower, grid(8, 8)) <= SLOTS
    with pytest.raises(PictureTooLarge, match=r"144 patches needs \d+ slots, not 64"):
        layout_of(tower, grid(12, 12), 64)


def test_several_pictures_at_once_are_refused(tower: Any) -> None:
    with pytest.raises(ValueError, match="one picture"):
        layout_of(tower, torch.tensor([[1, 4, 4], [1, 4, 4]]), SLOTS)


def test_slots_that_would_cut_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        tower_graph(tiny_tower("qwen2_5_vl"), 72)


@pytest.mark.slow
def test_half_precision_towers_agree_and_build_for_every_rtx_generation(tower: Any, tmp_path: Path) -> None:
    try:
        rtx = load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))
    for precision in ("fp16", "bf16"):
        graph = tower_graph(copy.deepcopy(tower).to(DTYPES[precision]), SLOTS)
        folder = tmp_path / precision
        folder.mkdir()
        export_graph(graph, folder, attention="fused-half")
        _norms_are_float32(folder / "graph.onnx")
        if precision == "fp16":
            true = run_in_torch(tower_graph(tower, SLOTS), {name: x.float() for name, x in graph.inputs.items()})
            found = OnnxSession(folder / "graph.onnx", threads=1).run(graph.inputs)
            for name, expected in true.items():
                assert relative(found[name].float(), expected) < BAR_FP16
        for capability in ("SM86", "SM89", "SM120"):
            assert len(build_engine(rtx, folder / "graph.onnx", capability=capability)) > 10_000


def _norms_are_float32(path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "RMSNormalization")]
    assert len(norms) >= 5
    assert {kinds[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
