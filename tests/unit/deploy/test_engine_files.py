"""Laws of the images and the builder of engines in compose."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engines.store.manifest import Target
from engines.store.recipes import DISTRIBUTIONS
from tests.unit.deploy.test_container_files import BUILDER, ROOT, compose, environment_names, filled, final_stage
from video_service.engines.__main__ import command_line
from video_service.settings import VideoSettings


@pytest.mark.parametrize("variables", [
    {}, {"ENGINE_TARGET": "onnx"},
    {"ENGINE_TARGET": "tensorrt-rtx", "ENGINE_CLIPS": "832x480x81,480x832x81", "ENGINE_PRECISION": "fp16",
     "ENGINE_SM": "89,120", "ENGINE_STREAM_WEIGHTS": "on"},
    {"ENGINE_TARGET": "tensorrt"},
])
def test_the_builder_of_engines_is_called_as_its_command_line_takes_it(variables: dict[str, str]) -> None:
    *module, command = [filled(word, **variables) for word in compose()["services"][BUILDER]["command"][:4]]
    assert [*module, command] == ["python", "-m", "video_service.engines", "build"]
    arguments = [filled(word, **variables) for word in compose()["services"][BUILDER]["command"][3:]]
    options = command_line().parse_args(arguments)
    assert options.target == variables.get("ENGINE_TARGET", "auto")
    assert options.clips == variables.get("ENGINE_CLIPS", "")
    assert options.sm == variables.get("ENGINE_SM", "here")


def test_the_builder_fills_the_volume_that_the_service_reads_and_ends_before_it_starts() -> None:
    services = compose()["services"]
    builder, service = services[BUILDER], services["video_service"]
    assert builder["profiles"] == ["engines"]
    assert "depends_on" not in service, "not every compose takes a dependency whose profile is off"
    waits = compose("deploy/compose.engines.yml")["services"]["video_service"]["depends_on"]
    assert waits == {BUILDER: {"condition": "service_completed_successfully"}}
    for same in ("image", "build", "volumes", "networks"):
        assert builder[same] == service[same], same
    for same in ("VIDEO_MODEL", "VIDEO_MODELS"):
        assert builder["environment"][same] == service["environment"][same]
    assert set(builder["environment"]) <= environment_names(VideoSettings)
    assert "engines:/engines" in builder["volumes"]
    given = " ".join(rest for instruction, rest in final_stage("video") if instruction == "ENV")
    assert "VIDEO_ENGINES=/engines" in given
    assert builder["restart"] == "no"
    assert builder["read_only"] is True
    assert builder["cap_drop"] == ["ALL"]
    gpu = compose("deploy/compose.gpu.yml")["services"]
    assert gpu[BUILDER]["deploy"] == gpu["video_service"]["deploy"]


@pytest.mark.parametrize(
    ("target", "wanted", "unwanted"),
    [
        ("", set(), {"onnx", "onnxruntime", "tensorrt-cu13"}),
        ("onnx", {"onnx", "onnxruntime", "onnxscript"}, {"tensorrt-rtx-cu13-bindings", "tensorrt-cu13"}),
        ("tensorrt-rtx", {"onnx", "tensorrt-rtx-cu13-bindings"}, {"tensorrt-cu13"}),
        ("tensorrt", {"onnx", "tensorrt-cu13"}, {"tensorrt-rtx-cu13-bindings"}),
    ],
)
def test_an_image_for_a_target_has_what_builds_and_runs_it_and_no_other(
    target: str, wanted: set[str], unwanted: set[str], tmp_path: Path
) -> None:
    for source in (ROOT / "deploy" / "requirements.py", ROOT / "pyproject.toml"):
        shutil.copy(source, tmp_path)
    command = [sys.executable, str(tmp_path / "requirements.py"), "video", *target.split()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {re.split(r"[<>=\[]", line)[0] for line in printed}
    assert wanted <= names
    assert not unwanted & names
    assert {"torch", "diffusers"} <= names


@pytest.mark.parametrize(("target", "extra"), [("onnx", "engines"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")])
def test_the_extra_of_a_target_installs_the_package_by_which_it_is_found(target: Target, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {re.split(r"[<>=]", need)[0] for need in project["optional-dependencies"][extra]}
    assert installed & set(DISTRIBUTIONS[target])


def test_every_variable_of_the_builder_is_in_the_page_on_deploying_engines() -> None:
    used = set(re.findall(r"\$\{(ENGINE_\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "engines-deploy.md").read_text(encoding="utf-8")
    assert used
    assert [name for name in sorted(used) if name not in page] == []
