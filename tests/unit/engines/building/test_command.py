"""The command line of the engines: what is wrong is told in one line, and nothing is guessed."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from engines.store.store import EngineStore
from gateway.cli.engines import engines, module_for
from video_service.engines.__main__ import main


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path) -> Path:
    monkeypatch.setenv("VIDEO_MODEL", str(tiny_folder))
    monkeypatch.setenv("VIDEO_DEVICE", "cpu")
    monkeypatch.setenv("STILLMOTION_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "--size", "64", "--frames", "9"], "the size '64' is not WIDTHxHEIGHT"),
        (["build", "--size", "64x64", "--frames", "8"], "8 frames: the model takes 4k+1 frames"),
        (["build", "--precision", "bf16"], "no bfloat16 kernels"),
        (["build", "--target", "tensorrt"], "there is none here"),
        (["build", "--model", "/nowhere"], "no checkpoint folder at /nowhere"),
        (["verify"], "run `stillmotion engines build`"),
    ],
)
def test_an_impossible_order_is_refused_before_anything_is_built(
    environment: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err
    assert not (environment / "engines").exists()


def test_the_list_shows_every_engine_its_state_and_what_is_ready(
    built_store: EngineStore, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDEO_ENGINES", str(built_store.root))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("verified" in line for line in lines) == 5
    assert any(line.startswith("onnx: 96x64x9 fp32 ready") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clips", "64x64"], "the clip '64x64' is not WIDTHxHEIGHTxFRAMES"),
        (["--clips", "64x64x9,96x64x10"], "10 frames: the model takes 4k+1 frames"),
        (["--target", "tensorrt-rtx", "--sm", "here"], "TensorRT-RTX does not run on no GPU"),
    ],
)
def test_every_clip_and_gpu_is_checked_before_any_is_built(
    environment: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["build", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert not (environment / "engines").exists()


def test_without_the_libraries_it_says_which_is_missing_and_how_to_get_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "engines.export.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["build"]) == 1
    told = capsys.readouterr().err
    assert "engines need onnx: pip install 'stillmotion[engines]'; in compose set ENGINE_TARGET" in told


def test_what_is_built_and_verified_is_neither_built_nor_verified_again(
    built_store: EngineStore, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at every later start of a deployment."""
    monkeypatch.setenv("VIDEO_ENGINES", str(built_store.root))
    monkeypatch.setenv("VIDEO_DTYPE", "float32")
    assert main(["build", "--target", "auto", "--clips", "96x64x9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["all 5 engines were already built"]


@pytest.mark.parametrize(("model", "module"), [
    ("", "video"), ("embedded", "video"), ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "video"), ("ali/i2vgen-xl", "video"),
    ("Qwen/Qwen2-VL-2B-Instruct", "vl"), ("Qwen/Qwen2.5-VL-7B-Instruct", "vl"), ("Qwen/Qwen3-VL-4B-Instruct", "vl"),
    ("VL/some-pipeline", "video"), ("pipeline", "video"), ("single", "vl"),
])
def test_the_model_says_whose_command_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, module: str
) -> None:
    """A folder by its files, whatever its name."""
    for folder, name in (("pipeline", "model_index.json"), ("pipeline", "config.json"), ("single", "config.json")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    named = ["build", "--size", "64x64", f"--model={model}"] if model else ["build", "--size", "64x64"]
    where = {"video": "video_service.engines", "vl": "vl_service.qwen.engines"}
    assert module_for(named) == where[module]


@pytest.mark.full
def test_stillmotion_engines_runs_it_in_another_process(
    environment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert engines(["list"], Console()) == 0
    assert "no engines in" in capfd.readouterr().out
