"""Another version's gateway beside today's services, and the reverse, with jobs in flight: none of them is lost.

The other version is the commit that PREVIOUS names: by default the latest tag, or the commit before this one.
"""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import REPOSITORY, KeptProcess, free_port, until
from tests.support.storm import picture_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

JOBS = 6
GATEWAY, SERVICES = "gateway", ("vl_service", "video_service")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the other version."""
    tag = _git("describe", "--tags", "--abbrev=0")
    wanted = os.environ.get("PREVIOUS") or (tag.stdout.decode().strip() if tag.returncode == 0 else "HEAD^")
    archive = _git("archive", wanted)
    if archive.returncode:
        pytest.skip(f"git knows no {wanted}: {archive.stderr.decode().strip()}")
    tree = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(tree, filter="data")
    return tree


def _git(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(REPOSITORY), *command], capture_output=True, check=False)


class Deployment:
    """A gateway and both services, each of the version of a tree, on ports and data that stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {name: free_port() for name in (GATEWAY, *SERVICES)}
        self._running: dict[str, KeptProcess] = {}
        self.url = f"http://127.0.0.1:{self._ports[GATEWAY]}"

    def start(self, tree: Path, *names: str) -> None:
        """Have these be of the version of `tree` from now on: ended as by an operator, and started."""
        for name in names:
            if name in self._running:
                self._running.pop(name).terminate()
            self._running[name] = KeptProcess(
                name, ["-m", name], self._ports[name], self._folder, self._settings(name, tree))
            self._running[name].start()

    def wait_ready(self) -> None:
        for process in self._running.values():
            process.wait_ready()

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()

    def _settings(self, name: str, tree: Path) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{tree}:{tree / 'services'}", "STILLMOTION_DATA": str(self._folder / "data"),
            "GATEWAY_PORT": str(self._ports[GATEWAY]), "VL_PORT": str(self._ports["vl_service"]),
            "VIDEO_PORT": str(self._ports["video_service"]), "GATEWAY_MIN_FREE_BYTES": "1",
        }


@contextmanager
def deployed(folder: Path, tree: Path) -> Iterator[Deployment]:
    deployment = Deployment(folder)
    try:
        deployment.start(tree, *SERVICES, GATEWAY)
        deployment.wait_ready()
        yield deployment
    finally:
        deployment.stop()


def submit(url: str) -> list[str]:
    """Jobs, every other one with a picture; returns when the first of them renders."""
    ids = []
    for n in range(JOBS):
        body: dict[str, Any] = {"prompt": f"kite {n}", "seed": n, "size": "128x128", "num_frames": 9, "steps": 3}
        if n % 2:
            body["image"] = picture_of(n)
        answer = httpx.post(f"{url}/generate", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
    until(lambda: any(job["state"] != "queued" for job in look(url, ids)), 60)
    return ids


def look(url: str, ids: list[str], wait_s: int = 0) -> list[dict[str, Any]]:
    return [
        httpx.get(f"{url}/v1/jobs/{one}", params={"wait": wait_s}, timeout=330, trust_env=False).json() for one in ids
    ]


@pytest.mark.parametrize("first", [SERVICES, (GATEWAY,)], ids=["services first", "gateway first"])
@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "way back"])
def test_versions_beside_each_other_lose_no_job(
    tmp_path: Path, previous: Path, first: tuple[str, ...], back: bool
) -> None:
    old, new = (REPOSITORY, previous) if back else (previous, REPOSITORY)
    with deployed(tmp_path, old) as deployment:
        ids = submit(deployment.url)
        deployment.start(new, *first)
        deployment.wait_ready()
        ids += submit(deployment.url)
        deployment.start(new, *{GATEWAY, *SERVICES}.difference(first))
        deployment.wait_ready()
        ids += submit(deployment.url)
        ended = look(deployment.url, ids, wait_s=240)
    assert [(job["state"], job["error"]) for job in ended] == [("completed", None)] * (3 * JOBS)
