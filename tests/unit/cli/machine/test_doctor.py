"""What `stillmotion doctor` says of machines of several kinds."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.cli.machine import look
from gateway.cli.machine.doctor import findings
from gateway.cli.serving.stack import StackSettings

RTX = "NVIDIA GeForce RTX 4090, 24564, 23900, 570.86, 8.9"
H200 = "NVIDIA H200, 143771, 143000, 580.95, 9.0"
SMALL = "NVIDIA GeForce GTX 1650, 4096, 3900, 570.86, 7.5"


def told(
    patch: pytest.MonkeyPatch, tmp_path: Path, gpus: str = "", torch: str | None = "2.13.0+cu130",
    environment: Mapping[str, str] | None = None,
) -> dict[str, tuple[str, str]]:
    """(verdict, sentence) by what was looked at, on a machine with these GPUs and this torch."""
    versions = look.versions
    patch.setattr(look, "gpus", lambda: look.parse_gpus(gpus))
    patch.setattr(look, "versions", lambda names: versions(names) | ({"torch": torch} if "torch" in names else {}))
    settings = StackSettings.model_validate({"stillmotion_data": str(tmp_path)})
    return {one.what: (one.verdict, one.said) for one in findings(settings, environment or {})}


@pytest.mark.parametrize(
    ("gpus", "verdict", "said"),
    [(RTX, "good", "1.3B; engines by TensorRT-RTX"), (H200, "good", "14B; engines by TensorRT"),
     (SMALL, "slow", "too small"), ("", "slow", "none"), ("what is this", "slow", "none")],
)
def test_a_gpu_is_named_with_what_it_is_good_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: str, verdict: str, said: str
) -> None:
    found = told(monkeypatch, tmp_path, gpus)["GPU"]
    assert (found[0], said in found[1]) == (verdict, True), found


def test_a_torch_that_sees_no_gpu_beside_a_gpu_is_bad_and_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert told(monkeypatch, tmp_path, RTX, "2.13.0+cpu")["torch"][0] == "bad"
    assert "torch" not in told(monkeypatch, tmp_path, "", "2.13.0+cpu")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert told(monkeypatch, tmp_path, torch=None)["packages"] == (
        "bad", "torch is missing: pip install 'stillmotion[vl,video]'")


def test_models_are_found_where_they_lie_or_how_they_come_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hub" / "models--Wan-AI--here" / "snapshots" / "abc").mkdir(parents=True)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "VL_MODEL": "Qwen/away",
                   "VIDEO_MODELS": f"embedded, Wan-AI/here, {tmp_path / 'none'}"}
    found = told(monkeypatch, tmp_path, RTX, environment=environment)
    assert found["VIDEO_MODELS=embedded"][0] == "good"
    assert found["VIDEO_MODELS=Wan-AI/here"][0] == "good"
    assert found[f"VIDEO_MODELS={tmp_path / 'none'}"] == ("bad", "there is no such folder")
    assert found["VL_MODEL=Qwen/away"] == (
        "slow", "will be downloaded at the start: stillmotion models pull Qwen/away")


def test_a_taken_port_and_the_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("GATEWAY_PORT", str(port))
        monkeypatch.setenv("STILLMOTION_DATA", str(tmp_path))
        monkeypatch.setenv("VIDEO_MODEL", str(tmp_path / "none"))
        result = CliRunner().invoke(app, ["doctor", "--json"])
    found = {one["what"]: one for one in json.loads(result.stdout)}
    assert "GATEWAY_PORT" in found[f"port {port}"]["said"]
    assert result.exit_code == 1
