"""Laws of deploy/compose.several.yml: two gateways and two video services on one Postgres and one bucket, of which each
is ended and started again under load, and nothing is lost."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.containers.engine import Engine, find_engine, free_ports

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

GATEWAYS, VIDEOS = ("gateway", "gateway_2"), ("video_service", "video_service_2")
BUCKET = "stillmotion"
READY_S = 300


@pytest.fixture(scope="module")
def urls() -> dict[str, str]:
    """Of each gateway, on a port that is free."""
    return {name: f"http://127.0.0.1:{port}" for name, port in zip(GATEWAYS, free_ports(len(GATEWAYS)), strict=True)}


@pytest.fixture(scope="module")
def engine(urls: dict[str, str]) -> Iterator[Engine]:
    """The engine, with everything started."""
    ports = [url.rpartition(":")[2] for url in urls.values()]
    found = find_engine({
        "GATEWAY_PORT": ports[0], "GATEWAY_2_PORT": ports[1], "STILLMOTION_INTERNAL_TOKEN": "a-token-for-the-tests",
        "POSTGRES_PASSWORD": "a-password", "POSTGRES_IMAGE": "stillmotion-test/stores", "GATEWAY_SECRET": "5" * 64,
        "GATEWAY_ARTIFACTS_URL": f"s3://{BUCKET}/videos", "AWS_ENDPOINT_URL": "http://s3:9000",
        "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "COMPOSE_FILE": "docker-compose.yml:deploy/compose.several.yml:tests/containers/several/compose.yml",
    })
    if found is None:
        pytest.skip("neither a Docker daemon nor podman with podman-compose is on this machine")
    for kind in ("gateway", "vl", "video"):
        found.build(kind)
    found.build_file("tests/containers/several/stores.Dockerfile", "stillmotion-test/stores")
    try:
        found.compose_run("up", "-d", "--no-build", "postgres", "s3")
        make_bucket(found)
        found.compose_run("up", "-d", "--no-build", *GATEWAYS, *VIDEOS, "vl_service")
        for url in urls.values():
            wait_until_ready(url)
        yield found
    finally:
        found.compose_run("down", "-v")


def make_bucket(engine: Engine) -> None:
    put = f"u.urlopen(u.Request('http://127.0.0.1:9000/{BUCKET}', method='PUT'))"
    until = time.monotonic() + 60
    while True:
        try:
            engine.run("exec", engine.container("s3"), "python3", "-c", f"import urllib.request as u; {put}")
            return
        except (AssertionError, IndexError):  # it starts
            if time.monotonic() > until:
                raise
            time.sleep(1)


def wait_until_ready(url: str) -> None:
    until, said = time.monotonic() + READY_S, "nothing"
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=10, trust_env=False)
            said = answer.text
            if answer.status_code == 200:
                return
        except httpx.TransportError as error:
            said = repr(error)
        time.sleep(0.5)
    pytest.fail(f"{url} is not ready after {READY_S} s: {said}")


def submit(url: str, jobs: int = 2) -> list[str]:
    found = []
    for seed in range(jobs):
        body = {"prompt": "a kite", "seed": seed, "size": "128x128", "num_frames": 9, "steps": 4}
        answer = httpx.post(f"{url}/generate", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 202, answer.text
        found.append(answer.json()["id"])
    return found


def ended(url: str, job: str) -> dict[str, Any]:
    until, told = time.monotonic() + 1800, {"state": "queued"}
    while told["state"] in ("queued", "running") and time.monotonic() < until:
        told = httpx.get(f"{url}/v1/jobs/{job}", params={"wait": 30}, timeout=60, trust_env=False).json()
    return told


def test_each_is_ended_and_started_again_under_load_and_nothing_is_lost(engine: Engine, urls: dict[str, str]) -> None:
    one, other = urls.values()
    jobs = submit(one)
    for name in (*VIDEOS, *GATEWAYS):
        container = engine.container(name)
        asked = other if name == "gateway" else one
        jobs += submit(asked)
        engine.run("stop", "-t", "120", container, limit_s=180)
        jobs += submit(asked)
        engine.run("start", container)
        for url in urls.values():
            wait_until_ready(url)
    told = [ended(other, job) for job in jobs]
    assert [(job["state"], job["error"]) for job in told] == [("completed", None)] * len(jobs)
    for url in urls.values():  # out of the bucket, whoever rendered and whoever kept it
        video = httpx.get(url + told[-1]["urls"]["content"], timeout=60, trust_env=False)
        assert (video.status_code, video.content[4:8]) == (200, b"ftyp")
