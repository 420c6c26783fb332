"""The command line of the engines: what is wrong is told in one line, and nothing is guessed."""

from pathlib import Path

import pytest
from rich.console import Console

from gateway.cli.engines import engines
from video_service.engine_store.store import EngineStore
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
        (["build", "--size", "64x64", "--frames", "8"], "8 frames: the VAE takes 4k+1"),
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


@pytest.mark.slow
def test_stillmotion_engines_runs_it_in_another_process(
    environment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert engines(["list"], Console()) == 0
    assert "no engines in" in capfd.readouterr().out
