"""Laws of the built images and of the running compose stack. `make containers-test` runs them; they take minutes.

`BASE_IMAGE` names another base than the Dockerfiles', `CONTAINER_BUILD_FLAGS` goes to every build.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest

from gateway.cli.serving.demo import default_picture
from tests.containers.engine import Engine, find_engine, free_ports

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

KINDS = ("gateway", "studio", "vl", "video")
READY_S = 300


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """The gateway's and the page's."""
    return free_ports(2)


@pytest.fixture(scope="module")
def engine(ports: list[int]) -> Engine:
    """The engine, with all images built."""
    gateway, studio = map(str, ports)
    found = find_engine({
        "GATEWAY_PORT": gateway, "STUDIO_PORT": studio, "STILLMOTION_INTERNAL_TOKEN": "a-token-for-the-tests"})
    if found is None:
        pytest.skip("neither a Docker daemon nor podman with podman-compose is on this machine")
    for kind in KINDS:
        found.build(kind)
    return found


@pytest.fixture(scope="module")
def gateway(engine: Engine, ports: list[int]) -> Iterator[httpx.Client]:
    """A client of the running stack."""
    try:
        engine.compose_run("up", "-d", "--no-build")
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=60, trust_env=False) as client:
            wait_until_ready(client)
            yield client
    finally:
        engine.compose_run("down", "-v")


def wait_until_ready(client: httpx.Client) -> None:
    """podman ignores `depends_on: service_healthy`, so readiness is waited for here."""
    until = time.monotonic() + READY_S
    said = "nothing"
    while time.monotonic() < until:
        try:
            answer = client.get("/readyz")
            said = answer.text
            if answer.status_code == 200:
                return
        except httpx.TransportError as error:
            said = repr(error)
        time.sleep(0.5)
    pytest.fail(f"not ready after {READY_S} s: {said}")


def render(client: httpx.Client, **fields: str) -> dict:
    """Post the cat and return the ended job."""
    picture = default_picture()
    answer = client.post("/generate", files={"image": (picture.name, picture.read_bytes())}, data=fields)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    until = time.monotonic() + 600
    while job["state"] in ("queued", "running") and time.monotonic() < until:
        job = client.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()
    return job


def number_of_frames(mp4: bytes, path: Path) -> int:
    path.write_bytes(mp4)
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_gateway_image_is_small_and_holds_no_model_library(engine: Engine) -> None:
    sizes = {kind: engine.image_mb(kind) for kind in KINDS}
    print("image sizes:", ", ".join(f"{kind} {size:.0f} MB" for kind, size in sizes.items()))
    assert sizes["gateway"] <= 380  # 24 of them huggingface_hub and hf-xet, by which init containers pull models
    program = "from importlib.util import find_spec as f; print(f('torch'), f('transformers'), f('diffusers'))"
    assert engine.run("run", "--rm", "stillmotion/gateway", "python", "-c", program) == "None None None"


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_has_no_root_and_no_build_tools_but_the_compiler_that_triton_needs(engine: Engine, kind: str) -> None:
    script = "id -u; for tool in pip gcc make git; do command -v $tool; done || true"
    listed = engine.run("run", "--rm", f"stillmotion/{kind}", "sh", "-c", script)
    assert listed.split() == ["10001", *["/usr/bin/gcc"] * (kind in ("vl", "video"))]


@pytest.mark.parametrize("kind", ["vl", "video"])
def test_a_module_as_triton_builds_it_compiles_where_its_cache_lies(engine: Engine, kind: str) -> None:
    """With its own command line, for without it no layer of ours runs on a GPU; then loaded from the cache's place."""
    program = """
import importlib.util, os, pathlib, subprocess, sysconfig, tempfile
cache = pathlib.Path(os.environ["TRITON_CACHE_DIR"]); cache.mkdir(parents=True)
source = pathlib.Path(tempfile.mkdtemp()) / "small.c"
source.write_text('#include <Python.h>\\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "small"};'
                  'PyMODINIT_FUNC PyInit_small(void) { return PyModule_Create(&m); }')
built = cache / ("small" + sysconfig.get_config_var("EXT_SUFFIX"))
scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
subprocess.check_call(["gcc", str(source), "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", str(built),
                       "-I" + sysconfig.get_paths(scheme=scheme)["include"]])
spec = importlib.util.spec_from_file_location("small", built)
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")
    engine.run("run", "--rm", *hardened, f"stillmotion/{kind}", "python", "-c", program)


def test_a_picture_posted_to_the_stack_comes_back_as_a_video(gateway: httpx.Client, tmp_path: Path) -> None:
    job = render(gateway)
    assert job["state"] == "completed", job["error"]
    assert "cat" in job["caption"].lower()
    mp4 = gateway.get(job["urls"]["content"]).content
    assert number_of_frames(mp4, tmp_path / "video.mp4") == job["video"]["num_frames"]


def test_the_page_is_served_beside_the_gateway_whose_address_leads_to_it(
    gateway: httpx.Client, ports: list[int]
) -> None:
    led = gateway.get("/")
    assert (led.status_code, httpx.URL(led.headers["location"]).port) == (307, ports[1])
    until, page = time.monotonic() + READY_S, None
    while page is None and time.monotonic() < until:
        try:
            page = httpx.get(led.headers["location"], follow_redirects=True, timeout=60, trust_env=False)
        except httpx.TransportError:  # podman starts it with the gateway, and not after it
            time.sleep(0.5)
    assert page is not None
    assert page.status_code == 200
    assert "Stillmotion" in page.text


def test_a_model_service_reaches_nothing_outside_and_writes_nowhere_but_its_volumes(
    gateway: httpx.Client, engine: Engine
) -> None:
    # The kernel's own table: a destination of all zeros is the way to everywhere else.
    routes = "print([line.split()[1] for line in open('/proc/net/route')][1:].count('00000000'), 'ways out')"
    write = "import pathlib; pathlib.Path('/app/x').touch()"
    for service in ("vl_service", "video_service"):
        container = engine.container(service)
        assert engine.run("exec", container, "python", "-c", routes) == "0 ways out"
        with pytest.raises(AssertionError, match="Read-only file system"):
            engine.run("exec", container, "python", "-c", write)
    assert engine.run("exec", engine.container("gateway"), "python", "-c", routes) == "1 ways out"


@pytest.mark.parametrize("service", ["video_service", "vl_service", "gateway"])
def test_a_container_that_dies_comes_back_and_the_next_picture_is_served(
    gateway: httpx.Client, engine: Engine, service: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to kill the process as a crash would: the engine's own kill counts as a wish to stop")
    before = int(engine.run("inspect", "-f", "{{.State.Pid}}", engine.container(service)))
    os.kill(before, signal.SIGKILL)
    until = time.monotonic() + 30
    while time.monotonic() < until and _pid(engine, service) in (0, before):
        time.sleep(0.2)
    assert _pid(engine, service) not in (0, before)
    wait_until_ready(gateway)
    assert render(gateway)["state"] == "completed"


def _pid(engine: Engine, service: str) -> int:
    try:
        return int(engine.run("inspect", "-f", "{{.State.Pid}}", engine.container(service)))
    except (IndexError, AssertionError):  # between its death and its return
        return 0


def test_jobs_survive_down_and_up_and_down_leaves_no_container(gateway: httpx.Client, engine: Engine) -> None:
    job = render(gateway)
    engine.compose_run("down")
    assert engine.containers() == []
    engine.compose_run("up", "-d", "--no-build")
    wait_until_ready(gateway)
    assert gateway.get(f"/v1/jobs/{job['id']}").json()["state"] == "completed"
    assert gateway.get(job["urls"]["content"]).status_code == 200
