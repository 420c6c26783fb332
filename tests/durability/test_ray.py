"""Replicas on two Ray nodes: one killed in mid-render costs no job and none is done twice by one that lives; a group
grows with its line, and a cancel ends a render within a step.
"""
# pyright: reportMissingImports=false

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import HTTP, REPOSITORY, free_port, gateway_process, until

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

JOBS = 40
LONG = {"prompt": "a slow kite", "steps": 50, "enhance": "never"}
STEP_S = 0.1  # of the scripted worker
NODE = {"num_cpus": 1, "resources": {"renders": 1}, "node_ip_address": "127.0.0.1"}
SCRIPT = str(REPOSITORY / "tests" / "support" / "scripted_video_service.py")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray import serve
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")  # on a busy machine
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")
    monkeypatch.setattr("ray._private.services.resolve_ip_for_localhost", lambda host: host)  # all of it stays there
    nodes = Cluster(initialize_head=True, head_node_args={
        **NODE, "num_cpus": 2, "resources": {"head": 1, "renders": 1}, "include_dashboard": False})
    nodes.add_node(**NODE)
    ray.init(
        address=nodes.address, namespace="test", log_to_driver=False, _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}"}})
    try:
        yield nodes
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


def served(folder: Path, model: Path, **group: float) -> str:
    """The application, with `group` of its video replicas; its URL."""
    from ray import serve

    from on_ray.app import build

    port = free_port()
    video = {
        "VIDEO_MODEL": str(model), "VIDEO_DEVICE": "cpu", "SCRIPTED_COMPLETIONS": str(folder / "completions"),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}",
    }
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(build({"groups": [
        {"service": "video", "settings": video, "command": [sys.executable, SCRIPT], "cpus": 0.5, "drain_s": 30,
         "resources": {"renders": 1}, **group},
        {"service": "vl", "settings": {"OMP_NUM_THREADS": "1", "PYTHONPATH": video["PYTHONPATH"]}, "cpus": 0.5,
         "resources": {"head": 0.1}, "drain_s": 0},
    ]}), name="stillmotion")
    return f"//127.0.0.1:{port}"


def members(url: str, service: str) -> list[str]:
    try:
        return HTTP.get(f"http:{url}/{service}").json()["members"]
    except (httpx.TransportError, ValueError, KeyError):
        return []


def test_a_node_that_is_killed_in_mid_render_costs_no_job(tmp_path: Path, model: Path, cluster: Any) -> None:
    url = served(tmp_path, model, min_replicas=2, max_replicas=2)
    until(lambda: (len(members(url, "video")), len(members(url, "vl"))) == (2, 1), 300,
          lambda: f"{members(url, 'video')} {members(url, 'vl')}")
    before = set(members(url, "video"))
    gateway = gateway_process(
        tmp_path, "only", f"ray:{url}/vl", f"ray:{url}/video", GATEWAY_PROBE_S="1", GATEWAY_CONCURRENCY="4",
        GATEWAY_ABANDON_AFTER_S="20")
    try:
        gateway.start()
        gateway.wait_ready()
        jobs = []
        for n in range(JOBS):
            body = {"prompt": f"a slow kite {n}", "seed": n, "steps": 6, "enhance": "always" if n % 8 == 0 else "never"}
            jobs.append(HTTP.post(f"{gateway.url}/generate", json=body).json())
        until(lambda: len(done(tmp_path)) >= 6, 120)
        killed = cluster.list_all_nodes()[-1]
        cluster.remove_node(killed, allow_graceful=False)
        cluster.add_node(**NODE)  # as a cloud's autoscaler would
        ended = [
            HTTP.get(f"{gateway.url}/v1/jobs/{job['id']}", params={"wait": 120}, timeout=150).json() for job in jobs
        ]
        assert Counter(job["state"] for job in ended) == {"completed": JOBS}, [job["error"] for job in ended]
        assert max(Counter(done(tmp_path)).values()) == 1, "nobody rendered one twice"
        until(lambda: len(set(members(url, "video"))) == 2 and set(members(url, "video")) != before, 180)
    finally:
        gateway.kill()


def test_a_group_grows_with_its_line_and_shrinks_after_it(tmp_path: Path, model: Path, cluster: Any) -> None:
    url = served(tmp_path, model, min_replicas=1, max_replicas=2, work_per_replica=2, scale_down_after_s=5)
    until(lambda: (len(members(url, "video")), len(members(url, "vl"))) == (1, 1), 300)
    gateway = gateway_process(
        tmp_path, "only", f"ray:{url}/vl", f"ray:{url}/video", GATEWAY_PROBE_S="1", GATEWAY_CONCURRENCY="8")
    try:
        gateway.start()
        gateway.wait_ready()
        jobs = [HTTP.post(f"{gateway.url}/generate", json=LONG | {"seed": n}).json()["id"] for n in range(20)]
        began = time.monotonic()
        until(lambda: len(members(url, "video")) == 2, 120)
        print(f"a second replica after {time.monotonic() - began:.1f} s")
        until(lambda: len(rendering(url, jobs)) == 2, 60, lambda: "the gateway follows the directory")
        for member, job in rendering(url, jobs):
            began = time.monotonic()
            HTTP.post(f"{gateway.url}/v1/jobs/{job}/cancel").raise_for_status()
            until(lambda there=member, canceled=job: state_at(there, canceled) != "running", STEP_S + 2)
            print(f"canceled after {time.monotonic() - began:.2f} s, a step takes {STEP_S} s")
            assert HTTP.get(f"{gateway.url}/v1/jobs/{job}").json()["state"] == "canceled"
            assert job not in {line.split()[0] for line in done(tmp_path)}
        for job in jobs:
            HTTP.post(f"{gateway.url}/v1/jobs/{job}/cancel")
        began = time.monotonic()
        until(lambda: len(members(url, "video")) == 1, 120)
        print(f"one replica again after {time.monotonic() - began:.1f} s without work")
        assert HTTP.get(f"{gateway.url}/readyz").status_code == 200
    finally:
        gateway.kill()


def rendering(url: str, jobs: list[str]) -> list[tuple[str, str]]:
    """The members that render, each with its job."""
    return [(one, job) for one in members(url, "video") for job in jobs if state_at(one, job) == "running"]


def state_at(member: str, job: str) -> str | None:
    """Of the render, where the member knows it."""
    return HTTP.get(f"{member}/v1/videos/{job}").json().get("state")


def done(folder: Path) -> list[str]:
    """`job process` of each render that was completed."""
    place = folder / "completions"
    return place.read_text().splitlines() if place.exists() else []
