"""Laws of the container files that can be checked without building anything."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices, AliasPath
from pydantic_settings import BaseSettings

from gateway.settings import GatewaySettings
from studio.settings import StudioSettings
from video_service.settings import VideoSettings
from vl_service.settings import Settings as VLSettings

ROOT = Path(__file__).resolve().parents[3]
SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings, "vl_service": VLSettings, "video_service": VideoSettings,
    "studio": StudioSettings,
}
BUILDER = "build_engines"
DOCKERFILES = {"gateway": "gateway", "vl_service": "vl", "video_service": "video", "studio": "studio"}
IMAGES = [*DOCKERFILES.values(), "ray"]
OF_THE_SYSTEM = {"PATH", "LANG", "HOME", "PYTHONUNBUFFERED", "PYTHONPATH", "HF_HOME", "TRITON_CACHE_DIR"}


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def filled(text: str, **variables: str) -> str:
    """As compose puts variables into a value: `${NAME:-default}`."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], text)


def environment_names(settings: type[BaseSettings]) -> set[str]:
    """Every variable that a settings class reads."""
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        names |= {str(choice).upper() for choice in choices if not isinstance(choice, AliasPath)}
    return names


def instructions(kind: str) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile, continued lines joined."""
    text = (ROOT / "deploy" / f"{kind}.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copied_from_the_checkout(kind: str) -> list[str]:
    sources = []
    for instruction, rest in instructions(kind):
        if instruction == "COPY" and not rest.startswith("--from="):
            sources += rest.split()[:-1]
    return sources


def final_stage(kind: str) -> list[tuple[str, str]]:
    steps = instructions(kind)
    last_from = max(index for index, (instruction, _) in enumerate(steps) if instruction == "FROM")
    return steps[last_from:]


@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_that_compose_sets_is_a_setting_of_that_service(service: str) -> None:
    names = set(compose()["services"][service]["environment"])
    assert names <= environment_names(SETTINGS[service])


@pytest.mark.parametrize("service", ["vl_service", "video_service", BUILDER])
def test_every_variable_of_the_gpu_file_is_a_setting_of_that_service(service: str) -> None:
    names = set(compose("deploy/compose.gpu.yml")["services"][service]["environment"])
    assert names <= environment_names(SETTINGS.get(service, VideoSettings))


@pytest.mark.parametrize("gpus", ["", "2"])
def test_the_gpu_file_gives_the_video_service_as_many_gpus_as_render_a_video(gpus: str) -> None:
    service = compose("deploy/compose.gpu.yml")["services"]["video_service"]
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    asked = [filled(text, VIDEO_GPUS=gpus) for text in (devices["count"], service["environment"]["VIDEO_GPUS"])]
    assert asked == [gpus or "1"] * 2
    assert service["shm_size"] == "1gb"  # of the 64 MB that a container has NCCL runs out


def test_the_vision_service_is_hardened_as_the_language_service_and_seen_by_nobody_else() -> None:
    """In a file of its own, so that anchors do not reach it."""
    language, parts = compose()["services"]["vl_service"], compose("deploy/compose.vision.yml")["services"]
    vision, changed = parts["vision_service"], parts["vl_service"]
    alike = language.keys() - {"build", "environment"}
    assert {name: vision[name] for name in alike} == {name: language[name] for name in alike}
    assert "ports" not in vision
    assert vision["networks"] == ["services"]
    assert vision["environment"]["VL_ROLE"] == "vision"
    assert changed["environment"] == {"VL_ROLE": "language", "VL_VISION_URL": "http://vision_service:8001"}
    for service in (vision, changed, compose("deploy/compose.vision.gpu.yml")["services"]["vision_service"]):
        assert set(service["environment"]) <= environment_names(VLSettings)


@pytest.mark.parametrize("name", ["gateway", "video_service"])
def test_the_second_of_several_is_as_the_first_on_the_same_database_and_bucket(name: str) -> None:
    """In a file of its own, so that anchors do not reach it."""
    one, several = compose()["services"][name], compose("deploy/compose.several.yml")["services"]
    second = several[f"{name}_2"]
    for alike in ("image", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "pids_limit", "healthcheck"):
        assert second[alike] == one[alike], alike
    assert second["environment"] == one["environment"] | several[name]["environment"]
    assert set(second["environment"]) <= environment_names(SETTINGS[name])
    assert second["networks"] == several[name].get("networks", one["networks"])
    places = [volume.partition(":")[2] for volume in one["volumes"]]
    assert [volume.partition(":")[2] for volume in second["volumes"]] == places
    own = {"gateway-data", "gateway-2-data", "video-data", "video-2-data"}
    assert not own & {volume.partition(":")[0] for volume in one["volumes"]} & {
        volume.partition(":")[0] for volume in second["volumes"]}, "each has a folder of its own"


@pytest.mark.parametrize(("service", "kind"), DOCKERFILES.items())
def test_every_variable_that_an_image_sets_is_a_setting_of_that_service(service: str, kind: str) -> None:
    given = " ".join(rest for instruction, rest in final_stage(kind) if instruction == "ENV")
    names = set(re.findall(r"(\w+)=", given))
    assert names - OF_THE_SYSTEM <= environment_names(SETTINGS[service])
    assert names - OF_THE_SYSTEM, "an image must at least listen on more than loopback"


@pytest.mark.parametrize("kind", IMAGES)
def test_every_copied_path_is_in_the_checkout_and_in_the_build_context(kind: str) -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    admitted = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for source in copied_from_the_checkout(kind):
        # Whoever owns the checkout: git refuses to look into somebody else's, unless it is named as safe.
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--", source]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert listed.stdout, f"{source} is not in the checkout"
        parts = [source, *map(str, Path(source).parents)]
        assert any(fnmatch(part, pattern) for part in parts for pattern in admitted), f"{source} is ignored"


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_holds_every_package_of_ours_that_its_code_imports(kind: str) -> None:
    ours = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()} | {"gateway"}
    held = [ROOT / source for source in copied_from_the_checkout(kind) if Path(source).name in ours]
    wanted = {name for folder in held for path in folder.rglob("*.py") for name in imported(path)} & ours
    assert wanted <= {folder.name for folder in held}


def imported(path: Path) -> Iterator[str]:
    """The first names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_runs_unprivileged_and_its_last_stage_installs_nothing(kind: str) -> None:
    steps = final_stage(kind)
    users = [rest for instruction, rest in steps if instruction == "USER"]
    assert users == ["10001:10001"]
    assert not any(re.search(r"\bpip\b|apt", rest) for instruction, rest in steps if instruction == "RUN")
    # Of a Ray node KubeRay asks in its own ways.
    assert any(instruction == "HEALTHCHECK" for instruction, _ in steps) == (kind != "ray")


@pytest.mark.parametrize("kind", IMAGES)
def test_code_is_copied_after_the_packages_so_that_a_change_of_code_installs_nothing(kind: str) -> None:
    steps = instructions(kind)
    install = next(index for index, (_, rest) in enumerate(steps) if "pip" in rest and "install" in rest)
    before = [rest for instruction, rest in steps[:install] if instruction == "COPY"]
    assert before == ["deploy/requirements.py pyproject.toml constraints.txt ./"]


def test_each_service_holds_its_own_checkpoint_and_the_gateway_none() -> None:
    holding = {kind: {source for source in copied_from_the_checkout(kind) if source.startswith("models")}
               for kind in DOCKERFILES.values()}
    assert holding == {"gateway": set(), "studio": set(), "vl": {"models/vl"}, "video": {"models/video"}}


def test_only_the_gateway_and_the_page_are_published_and_the_services_network_leads_nowhere() -> None:
    stack = compose()
    assert [name for name, service in stack["services"].items() if "ports" in service] == ["gateway", "studio"]
    assert stack["services"]["studio"]["networks"] == ["public"], "a client of the gateway reaches nothing else"
    assert stack["networks"]["services"]["internal"] is True
    assert all(stack["services"][name]["networks"] == ["services"] for name in ("vl_service", "video_service"))


@pytest.mark.parametrize("service", SETTINGS)
def test_a_container_has_no_more_rights_than_it_needs(service: str) -> None:
    given = compose()["services"][service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in given["security_opt"]
    assert given["restart"] == "unless-stopped"
    assert "healthcheck" in given


@pytest.mark.parametrize(("service", "kind"), DOCKERFILES.items())
def test_compose_the_image_and_the_settings_agree_on_the_port(service: str, kind: str) -> None:
    port = str(SETTINGS[service].model_fields["port"].default)
    assert [rest for instruction, rest in final_stage(kind) if instruction == "EXPOSE"] == [port]
    assert compose()["services"][service]["healthcheck"]["test"][-1] == port


@pytest.mark.parametrize("kind", DOCKERFILES.values())
def test_an_image_installs_the_extra_of_its_service_and_the_gateway_no_model_library(kind: str, tmp_path: Path) -> None:
    more = {"gateway": "pull otel ", "video": "otel ${ENGINE_TARGET} ${EXTRAS} "}.get(kind, "otel ")
    asked = f"requirements.py {kind} {more}>"
    assert any(asked in rest for _, rest in instructions(kind))
    for source in (ROOT / "deploy" / "requirements.py", ROOT / "pyproject.toml"):
        shutil.copy(source, tmp_path)
    command = [sys.executable, str(tmp_path / "requirements.py"), kind]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "fastapi" in printed
    assert ("torch" in printed) == (kind in ("vl", "video"))


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_another_server_is_asked_where_it_listens_and_is_no_door_of_its_own(server: str) -> None:
    parts = compose(f"deploy/compose.{server}.yml")["services"]
    asked = parts["vl_service"]["environment"]
    port = asked["VL_REMOTE_URL"].removeprefix(f"http://{server}:").removesuffix("/v1")
    assert f":{port}/health" in parts[server]["healthcheck"]["test"][-1]
    assert "ports" not in parts[server]
    assert set(asked) <= environment_names(VLSettings)
    assert parts["vl_service"]["depends_on"] == {server: {"condition": "service_healthy"}}
