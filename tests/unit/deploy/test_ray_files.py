"""Laws of the Ray files: Serve's config for a cluster, and the same in KubeRay's RayService."""

import ast
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from gateway.cli.commands import app as command_line
from on_ray.shape import Group, Shape, on_this_machine
from tests.unit.deploy.test_container_files import ROOT, SETTINGS, environment_names, instructions
from tests.unit.deploy.test_kubernetes import HERE, NO_PART_OF_KUBERNETES, PART_OF, VERSION, of_kind, rendered, selected

CLUSTER = yaml.safe_load((ROOT / "deploy" / "ray" / "cluster.yaml").read_text())
SERVICES = {"video": "video_service", "vl": "vl_service"}


def ray_service() -> dict[str, Any]:
    return of_kind(rendered(HERE / "ray"), "RayService")[0]["spec"]


def config(of: str) -> dict[str, Any]:
    return CLUSTER if of == "cluster" else yaml.safe_load(ray_service()["serveConfigV2"])


@pytest.mark.parametrize("of", ["cluster", "kuberay"])
def test_the_application_is_ours_and_its_groups_have_settings_of_their_services(of: str) -> None:
    for application in config(of)["applications"]:
        module, name = application["import_path"].split(":")
        tree = ast.parse((ROOT / "services" / Path(*module.split("."))).with_suffix(".py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        shape = Shape.model_validate(application["args"])
        assert {group.service for group in shape.groups} == set(SERVICES)
        names = [group.name or group.service for group in shape.groups]
        assert len(names) == len(set(names)), "Serve tells deployments apart by their names"
        for group in shape.groups:
            assert set(group.settings) <= environment_names(SETTINGS[SERVICES[group.service]])


@pytest.mark.parametrize(("given", "gpus"), [
    ({"settings": {"VIDEO_GPUS": "2"}}, 2), ({"settings": {"VIDEO_GPUS": "2"}, "gpus": 2}, 2),
    ({"settings": {"VIDEO_GPUS": "2"}, "gpus": 0}, 0), ({"settings": {"VIDEO_GPUS": "2", "VIDEO_DEVICE": "cpu"}}, 0),
    ({"settings": {"VIDEO_GPUS": ""}}, 0), ({"settings": {"VIDEO_GPUS": "1"}, "gpus": 0.5}, 0.5), ({"gpus": 1}, 1),
])
def test_a_replica_has_as_many_gpus_as_render_a_video(given: dict[str, Any], gpus: float) -> None:
    assert Group.model_validate({"service": "video"} | given).gpus == gpus


@pytest.mark.parametrize("gpus", [0.5, 1, 4])
def test_a_group_whose_replicas_would_be_refused_by_their_service_is_none(gpus: float) -> None:
    with pytest.raises(ValueError, match=r"VIDEO_GPUS=2 and gpus: .*: a replica needs gpus: 2"):
        Group.model_validate({"service": "video", "settings": {"VIDEO_GPUS": "2"}, "gpus": gpus})


@pytest.mark.parametrize(("there", "of_a_video", "video", "replicas", "describes"), [
    (0, 1, 0, 1, 0), (1, 1, 1, 1, 0), (2, 1, 1, 1, 1), (8, 1, 1, 7, 1),
    (0, 2, 0, 1, 0), (1, 2, 1, 1, 0), (2, 2, 2, 1, 0), (3, 2, 2, 1, 1), (8, 2, 2, 3, 1), (9, 4, 4, 2, 1),
])
def test_one_machine_has_all_its_gpus_at_work(
    there: int, of_a_video: int, video: float, replicas: int, describes: float
) -> None:
    groups = {group.service: group for group in Shape.model_validate(on_this_machine(there, of_a_video)).groups}
    assert (groups["video"].gpus, groups["video"].min_replicas) == (video, replicas)
    assert groups["vl"].gpus == describes
    assert replicas * video + describes <= there


def test_the_cluster_of_kuberay_is_one_that_kubernetes_takes() -> None:
    for resource in rendered(HERE / "ray"):
        if resource["kind"] not in NO_PART_OF_KUBERNETES:
            kubernetes_validate.validate(resource, VERSION, strict=True)
    cluster = ray_service()["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(template, VERSION, strict=True)
        assert group["template"]["spec"]["enableServiceLinks"] is False


def test_every_replica_has_room_on_a_node_and_pods_outlast_its_drain() -> None:
    worker = ray_service()["rayClusterConfig"]["workerGroupSpecs"][0]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    groups = Shape.model_validate(config("kuberay")["applications"][0]["args"]).groups
    for group in groups:
        assert group.gpus <= float(limits["nvidia.com/gpu"])
        assert group.cpus <= float(limits["cpu"])
        assert group.drain_s < worker["template"]["spec"]["terminationGracePeriodSeconds"]
    assert worker["minReplicas"] >= sum(group.min_replicas for group in groups)
    pulls = [one["command"] for one in worker["template"]["spec"]["initContainers"]]
    for words in pulls:
        assert words[:3] == ["python", "-m", "gateway.cli"]
        assert get_command(command_line).make_context("pull", words[3:])
    models = {path for group in groups for key, path in group.settings.items() if "MODEL" in key}
    assert models == {words[words.index("--to") + 1] for words in pulls}


def test_nodes_are_of_the_image_whose_ray_is_the_pinned_one() -> None:
    cluster = ray_service()["rayClusterConfig"]
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    assert any("requirements.py video vl ray " in rest for _, rest in instructions("ray"))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        container = group["template"]["spec"]["containers"][0]
        assert container["image"] == "stillmotion/ray"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["serve"] == config("kuberay")["http_options"]["port"], "KubeRay asks there whether it is ready"


def test_the_autoscaler_reaches_the_api_server_and_workers_no_more_than_the_hub() -> None:
    policies = [one["spec"] for one in of_kind(rendered(HERE / "ray"), "NetworkPolicy")]
    ours = {"app.kubernetes.io/component": "ray"}
    for more, wanted in (({"ray.io/node-type": "head"}, {443, 6443, 53}), ({"stillmotion/pulls": "models"}, {443, 53})):
        mine = [spec for spec in policies if selected(ours | more, spec["podSelector"])]
        rules = [rule for spec in mine for rule in spec.get("egress", [])]
        assert {port["port"] for rule in rules for port in rule.get("ports", [])} == wanted


def test_the_gateway_asks_the_directory_where_serve_listens() -> None:
    resources = rendered(HERE / "ray")
    gateway = next(one for one in of_kind(resources, "Deployment") if one["metadata"]["name"] == "gateway")
    env = {one["name"]: one.get("value") for one in gateway["spec"]["template"]["spec"]["containers"][0]["env"]}
    port = config("kuberay")["http_options"]["port"]
    service = of_kind(resources, "RayService")[0]["metadata"]["name"] + "-serve-svc"  # as KubeRay names it
    assert env["GATEWAY_VIDEO_URL"] == f"ray://{service}:{port}/video"
    assert env["GATEWAY_VL_URL"] == f"ray://{service}:{port}/vl"
    assert config("cluster")["http_options"]["port"] == port
    left = {one["metadata"]["name"] for one in of_kind(resources, "Deployment", "Service")}
    assert not left & {"video", "vl"}, "they are Ray's"
    head = ray_service()["rayClusterConfig"]["headGroupSpec"]["template"]
    closed = next(one for one in of_kind(resources, "NetworkPolicy") if one["metadata"]["name"] == "nothing-by-default")
    assert closed["spec"]["podSelector"]["matchLabels"] == {PART_OF: "stillmotion"}
    assert port in [one["containerPort"] for one in head["spec"]["containers"][0]["ports"]]
