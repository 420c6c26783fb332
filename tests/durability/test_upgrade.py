"""The last release's wheel beside today's tree, with jobs in flight: those made by one end under the other, forward and
one version back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HTTP, REPOSITORY, KeptProcess, free_port, until
from tests.support.release import NoSuchCommit, Release, here, installed
from tests.support.storm import picture_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

JOBS = 6
SERVICES = ("vl_service", "video_service")
ENDED = ("completed", "failed", "canceled")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    try:
        return installed(tmp_path_factory.mktemp("release"))
    except NoSuchCommit as reason:
        pytest.skip(str(reason))


class Deployment:
    """Gateways on one database and both services, each of one version or the other, on ports and data that stay."""

    def __init__(self, folder: Path, gateways: tuple[str, ...], database_url: str | None) -> None:
        self.gateways = gateways
        self._folder, self._database_url = folder, database_url
        self._ports = {name: free_port() for name in (*gateways, *SERVICES)}
        self._running: dict[str, KeptProcess] = {}
        self._place = 0

    def start(self, version: Release, *names: str) -> None:
        """Have these be of `version` from now on: ended as by an operator, and started."""
        for name in names:
            if name in self._running:
                self._running.pop(name).terminate()
        for name in names:
            module = "gateway" if name in self.gateways else name
            self._running[name] = KeptProcess(
                name, ["-m", module], self._ports[name], self._folder, self._settings(name, version), version.python)
            self._running[name].start()
        for name in names:
            self._running[name].wait_ready()

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()

    def submit(self) -> list[str]:
        """Jobs, to each gateway that runs in turn, every other one with a picture; returns when one of them renders."""
        ids = []
        for n in range(JOBS):
            body: dict[str, Any] = {"prompt": f"kite {n}", "seed": n, "size": "128x128", "num_frames": 9, "steps": 3}
            if n % 2:
                body["image"] = picture_of(n)
            answer = HTTP.post(f"{self._gateway()}/generate", json=body, timeout=60)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        until(lambda: any(job["state"] != "queued" for job in self.look(ids)), 240)
        return ids

    def look(self, ids: list[str], wait_s: int = 0) -> list[dict[str, Any]]:
        return [
            HTTP.get(f"{self._gateway()}/v1/jobs/{one}", params={"wait": wait_s}, timeout=330).json() for one in ids]

    def video_of(self, job: dict[str, Any]) -> bytes:
        return HTTP.get(f"{self._gateway()}{job['urls']['content']}").raise_for_status().content

    def _gateway(self) -> str:
        self._place += 1
        return self._running[self.gateways[self._place % len(self.gateways)]].url

    def _settings(self, name: str, version: Release) -> dict[str, str]:
        shared = {"GATEWAY_DATABASE_URL": self._database_url} if self._database_url else {}
        return shared | {
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}" if version == here() else "",
            "STILLMOTION_DATA": str(self._folder / "data"), "STILLMOTION_MODELS": str(version.models),
            "GATEWAY_PORT": str(self._ports[name]), "GATEWAY_EXECUTOR_ID": name, "GATEWAY_MIN_FREE_BYTES": "1",
            "GATEWAY_VL_URL": f"http://127.0.0.1:{self._ports['vl_service']}",
            "GATEWAY_VIDEO_URL": f"http://127.0.0.1:{self._ports['video_service']}",
            "VL_PORT": str(self._ports["vl_service"]), "VIDEO_PORT": str(self._ports["video_service"]),
        }


@contextmanager
def deployed(
    folder: Path, version: Release, *gateways: str, database_url: str | None = None
) -> Iterator[Deployment]:
    deployment = Deployment(folder, gateways, database_url)
    try:
        deployment.start(version, *SERVICES, *gateways)
        yield deployment
    finally:
        deployment.stop()


def all_ended_well(deployment: Deployment, ids: list[str]) -> None:
    """Every job has its video, whoever made it and whoever is asked now."""
    ended = deployment.look(ids, wait_s=240)
    assert [(job["state"], job["error"]) for job in ended] == [("completed", None)] * len(ids)
    for job in ended:
        assert deployment.video_of(job)[4:8] == b"ftyp", job["id"]


back = pytest.mark.parametrize("back", [False, True], ids=["upgrade", "way back"])


@back
def test_jobs_that_one_version_left_end_when_all_is_of_the_other(tmp_path: Path, release: Release, back: bool) -> None:
    old, new = (here(), release) if back else (release, here())
    with deployed(tmp_path, old, "gateway") as deployment:
        ids = deployment.submit()
        waiting = [job for job in deployment.look(ids) if job["state"] not in ENDED]
        deployment.start(new, "gateway", *SERVICES)
        assert len(waiting) >= JOBS // 2, "too few were left for the other version"
        all_ended_well(deployment, ids)


@pytest.mark.parametrize("first", [SERVICES, ("gateway",)], ids=["services first", "gateway first"])
@back
def test_a_gateway_of_one_version_works_with_services_of_the_other(
    tmp_path: Path, release: Release, first: tuple[str, ...], back: bool
) -> None:
    old, new = (here(), release) if back else (release, here())
    with deployed(tmp_path, old, "gateway") as deployment:
        ids = deployment.submit()
        deployment.start(new, *first)
        ids += deployment.submit()
        deployment.start(new, *{"gateway", *SERVICES}.difference(first))
        ids += deployment.submit()
        all_ended_well(deployment, ids)


@back
def test_gateways_of_both_versions_carry_each_others_jobs_on_one_postgres(
    tmp_path: Path, release: Release, postgres_url: str, back: bool
) -> None:
    old, new = (here(), release) if back else (release, here())
    with deployed(tmp_path, old, "one", "two", database_url=postgres_url) as deployment:
        ids = deployment.submit()
        for changed in (("one",), SERVICES, ("two",)):
            deployment.start(new, *changed)
            ids += deployment.submit()
        all_ended_well(deployment, ids)
