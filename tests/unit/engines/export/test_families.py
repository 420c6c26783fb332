"""The other families' graphs compute what diffusers' own classes compute."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.build.tensorrt import RTX_CAPABILITIES, build_engine
from engines.export.graph import DTYPES, Graph, run_in_torch
from engines.export.onnx import export_graph
from engines.run.onnxrt import OnnxSession
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from tests.checkpoints.tiny_families import save_tiny_family, tiny_parts
from video_service.engines.__main__ import main
from video_service.engines.clips import ClipGraphs
from video_service.engines.shape import ClipShape
from video_service.layers.wan.engines import EngineCodec
from video_service.model import find_model
from video_service.settings import VideoSettings

SHAPES = {
    "wan2.2-experts": ClipShape(width=64, height=48, num_frames=9, text_tokens=16),
    "wan2.2-ti2v": ClipShape(width=96, height=64, num_frames=9, text_tokens=16),
    "i2vgen-xl": ClipShape(width=128, height=64, num_frames=4, text_tokens=8),
}
# One export of a family and a precision; of the full form are bf16, which differs by the type alone, graphs of layers
# that others here have too, and the UNet, which takes half a minute.
_GRAPHS = [
    *(("wan2.2-ti2v", name) for name in ("transformer", "vae_encoder", "vae_decoder_first", "vae_decoder_later")),
    ("i2vgen-xl", "unet"), ("wan2.2-experts", "transformer_2"),
]
_ALWAYS = [("wan2.2-ti2v", "transformer"), ("wan2.2-ti2v", "vae_decoder_later")]
HALVES = [
    pytest.param(*graph, precision, marks=() if graph in _ALWAYS and precision == "fp16" else pytest.mark.full)
    for precision in ("fp16", "bf16") for graph in _GRAPHS
]
BAR_FP32, BAR_FP16 = 1e-4, 5e-3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_family(tmp_path_factory.mktemp(name), name) for name in SHAPES}


@pytest.fixture(scope="module")
def clips(folders: dict[str, Path]) -> dict[str, ClipGraphs]:
    return {name: ClipGraphs(find_model(settings_for(folder))) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipGraphs]:
    """Of fewer layers."""
    folders = {name: save_tiny_family(tmp_path_factory.mktemp(name), name, shallow=True) for name in SHAPES}
    return {name: ClipGraphs(find_model(settings_for(folder))) for name, folder in folders.items()}


def settings_for(folder: Path) -> VideoSettings:
    return VideoSettings(model=str(folder), device="cpu", dtype="float32", engine="torch")


@pytest.fixture
def exported(clips: dict[str, ClipGraphs], tmp_path: Path) -> Callable[[str, str], OnnxSession]:
    def export(family: str, name: str) -> OnnxSession:
        graph = clips[family].graphs(SHAPES[family], torch.float32)[name]
        folder = tmp_path / name
        folder.mkdir()
        export_graph(graph, folder)
        return OnnxSession(folder / "graph.onnx", threads=1)

    return export


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    assert found.shape == true.shape
    return float((found.double() - true.double()).norm() / true.double().norm())


def test_every_graph_of_every_family_has_a_place_in_the_store(clips: dict[str, ClipGraphs]) -> None:
    names = {name: set(found.graphs(SHAPES[name], torch.float32)) for name, found in clips.items()}
    wan = {"text_encoder", "vae_encoder", "vae_decoder_first", "vae_decoder_later", "transformer"}
    assert names == {"wan2.2-experts": wan | {"transformer_2"}, "wan2.2-ti2v": wan, "i2vgen-xl": {"unet"}}
    for name, found in clips.items():
        assert names[name] == set(found.family.render_graphs)
        for graph in names[name]:
            assert set(SHAPES[name].fields(graph)) <= {"width", "height", "num_frames", "text_tokens"}


def test_the_two_experts_are_two_networks(clips: dict[str, ClipGraphs]) -> None:
    graphs = clips["wan2.2-experts"].graphs(SHAPES["wan2.2-experts"], torch.float32)
    high, low = graphs["transformer"], graphs["transformer_2"]
    difference = run_in_torch(high, high.inputs)["velocity"] - run_in_torch(low, high.inputs)["velocity"]
    assert float(difference.norm()) > 0.1


@torch.inference_mode()
def test_the_ti2v_transformer_takes_a_time_for_each_latent_frame(clips: dict[str, ClipGraphs]) -> None:
    graph = clips["wan2.2-ti2v"].graphs(SHAPES["wan2.2-ti2v"], torch.float32)["transformer"]
    inputs = graph.inputs
    assert inputs["timestep"].tolist() == [[0.0, 500.0, 500.0]]
    by_token = inputs["timestep"].repeat_interleave(2 * 3, dim=1)  # 4x6 latents in patches of 2x2
    transformer = tiny_parts("wan2.2-ti2v")["transformer"]
    true = transformer(inputs["latents"], by_token, inputs["text"], return_dict=False)[0]
    assert relative(run_in_torch(graph, inputs)["velocity"], true) < BAR_FP32


@pytest.mark.parametrize(("arguments", "words"), [
    (["--size", "96by64"], "the size '96by64' is not WIDTHxHEIGHT"),
    (["--size", "96x64", "--frames", "8"], "8 frames: the model takes 4k+1 frames"),
])
def test_the_command_wants_a_shape_that_the_family_has(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], words: str,
) -> None:
    monkeypatch.setenv("STILLMOTION_DATA", str(tmp_path))
    monkeypatch.setenv("VIDEO_DEVICE", "cpu")
    assert main(["build", "--model", str(folders["wan2.2-ti2v"]), "--target", "onnx", *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def built_unet(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of I2VGen-XL's graph, which the command built, and what it said."""
    data, said = tmp_path_factory.mktemp("data"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setenv("STILLMOTION_DATA", str(data))
        patch.setenv("VIDEO_DEVICE", "cpu")
        model = str(folders["i2vgen-xl"])
        assert main(["build", "--model", model, "--size", "136x72", "--frames", "4", "--target", "onnx"]) == 0
    [path] = data.rglob("graph.onnx")
    return path, said.getvalue()


@pytest.mark.slow
def test_the_command_builds_and_verifies_another_family(built_unet: tuple[Path, str]) -> None:
    """I2VGen-XL, whose clips may have any number of frames."""
    assert "unet cpu: verified" in built_unet[1]


@pytest.mark.full
@torch.inference_mode()
def test_the_ti2v_vae_decodes_and_encodes_as_diffusers_does(exported: Any) -> None:
    """Four latent frames, so that history older than one step is used too."""
    vae = tiny_parts("wan2.2-ti2v")["vae"]
    names = ("vae_encoder", "vae_decoder_first", "vae_decoder_later")
    encoder, first, later = (exported("wan2.2-ti2v", name) for name in names)
    latents = torch.randn(1, 4, 4, 4, 6, generator=torch.Generator().manual_seed(3))
    true = vae.decode(latents, return_dict=False)[0]
    found = torch.cat(list(EngineCodec(encoder, first, later).decode(latents, 1)), dim=2)
    assert found.shape == (1, 3, 13, 64, 96)
    for frame in range(13):
        assert relative(found[:, :, frame].clamp(-1, 1), true[:, :, frame]) < BAR_FP32, frame
    picture = torch.rand(1, 3, 1, 64, 96, generator=torch.Generator().manual_seed(4)) * 2 - 1
    true = vae.encode(picture, return_dict=False)[0].mode()
    assert relative(encoder.run({"picture": picture})["latents"], true) < BAR_FP32


@torch.inference_mode()
def test_the_second_expert_is_diffusers_transformer(clips: dict[str, ClipGraphs]) -> None:
    graph = clips["wan2.2-experts"].graphs(SHAPES["wan2.2-experts"], torch.float32)["transformer_2"]
    inputs = graph.inputs
    transformer = tiny_parts("wan2.2-experts")["transformer_2"]
    true = transformer(inputs["latents"], inputs["timestep"], inputs["text"], return_dict=False)[0]
    assert relative(run_in_torch(graph, inputs)["velocity"], true) < BAR_FP32


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("size", [(128, 64), (136, 72)])
def test_the_i2vgen_unet_is_diffusers_unet_at_even_and_odd_sizes(
    clips: dict[str, ClipGraphs], built_unet: tuple[Path, str], size: tuple[int, int]
) -> None:
    """The second size leaves a row and a column that halving and doubling do not give back: it is the built one."""
    shape = ClipShape(width=size[0], height=size[1], num_frames=4, text_tokens=77)
    graph = clips["i2vgen-xl"].graphs(shape, torch.float32)["unet"]
    x = graph.inputs
    true = tiny_parts("i2vgen-xl")["unet"](
        x["latents"], x["timestep"], x["fps"], x["image_latents"], x["image_embeddings"], x["text"], return_dict=False,
    )[0]
    assert relative(run_in_torch(graph, x)["velocity"], true) < BAR_FP32
    if size == (136, 72):
        assert relative(OnnxSession(built_unet[0], threads=1).run(x)["velocity"], true) < BAR_FP32


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name", "precision"), HALVES)
def test_half_precision_agrees_with_torch_and_builds_for_every_rtx_generation(
    shallow: dict[str, ClipGraphs], tmp_path: Path, family: str, name: str, precision: str
) -> None:
    rtx = _rtx()
    graph = shallow[family].graphs(SHAPES[family], DTYPES[precision])[name]
    export_graph(graph, tmp_path, attention="fused-half")
    if precision == "fp16":
        _check_half(graph, shallow[family].graphs(SHAPES[family], torch.float32)[name], tmp_path)
    for capability in RTX_CAPABILITIES:
        assert len(build_engine(rtx, tmp_path / "graph.onnx", capability=capability)) > 10_000


def _check_half(graph: Graph, true: Graph, folder: Path) -> None:
    found = OnnxSession(folder / "graph.onnx", threads=1).run(graph.inputs)
    inputs = {key: x.to(true.inputs[key].dtype) for key, x in graph.inputs.items()}
    for key, expected in run_in_torch(true, inputs).items():
        assert float((found[key].float() - expected).norm() / (expected.norm() or 1)) < BAR_FP16, key


def _rtx() -> Any:
    try:
        return load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))
