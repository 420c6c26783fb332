"""A deployment under load while its processes are killed at random, and whether it kept every promise afterwards."""

import base64
import hashlib
import io
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from gateway.storage.files import OWNERS, TRASH
from tests.support.processes import HTTP, KeptProcess, gateway_process, scripted_video_process, until

ENDED = ("completed", "failed", "canceled")
# What a job may fail with here: its render, or its gateway, was killed again and again while it was at work on it.
TRUE_REASONS = frozenset({"worker_died", "crashed_too_often", "render_interrupted"})
_CLIENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was seen; every list names jobs or files and should be empty."""

    jobs: int
    kills: dict[str, int]
    seconds: float
    states: dict[str, int]
    reasons: dict[str, int]
    lost: list[str]
    rendered_twice: list[str]
    untrue: list[str]
    orphans: list[str]

    @property
    def kept_every_promise(self) -> bool:
        """None lost, none rendered twice by a service that lives, each ended truthfully, no file is nobody's."""
        return not (self.lost or self.rendered_twice or self.untrue or self.orphans)


class Deployment:
    """Gateways on one database, one video service with its worker; what dies is started again at once."""

    def __init__(self, folder: Path, model: Path, vl_url: str, *, database_url: str | None, gateways: int) -> None:
        self.folder = folder
        self.video = scripted_video_process(folder, model)
        self.gateways = [
            gateway_process(
                folder, f"gateway-{n}", vl_url, self.video.url, database_url, GATEWAY_DEAD_AFTER_S="4",
                GATEWAY_PROBE_S="1", GATEWAY_MAX_QUEUE="5000",
            )
            for n in range(gateways)
        ]
        self._kept: list[KeptProcess] = []
        self._ends = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start all and keep them alive."""
        for process in (self.video, *self.gateways):
            process.start()
        for process in (self.video, *self.gateways):
            process.wait_ready()
        self._kept = [self.video, *self.gateways]
        self._keeper.start()

    def stop(self) -> None:
        """Kill all for good."""
        self._ends.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for process in (*self.gateways, self.video):
            process.kill()

    def _keep(self) -> None:
        while not self._ends.wait(0.05):
            for process in self._kept:
                if not process.lives():
                    process.start()

    def restart_gateways(self) -> None:
        """Stop every gateway in good order, then start them all.

        The first is alone for a moment, and may remove the unfinished files of all who were killed; where others live,
        such files are left until nobody can be writing them any more.
        """
        kept, self._kept = self._kept, [self.video]
        for gateway in self.gateways:
            gateway.terminate()
        for gateway in self.gateways:
            gateway.start()
            gateway.wait_ready()
        self._kept = kept


def storm(deployment: Deployment, *, jobs: int, kills: int, between_kills_s: float, seed: int) -> Report:
    """Submit `jobs` while `kills` processes are killed; wait until all have ended, and look closely."""
    began = time.monotonic()
    rng = random.Random(seed)
    pause_s = kills * between_kills_s / jobs
    with ThreadPoolExecutor(_CLIENTS) as clients:
        accepted = [clients.submit(_submit, deployment, n, began + n * pause_s) for n in range(jobs)]
        killed = _kill(deployment, kills, between_kills_s, rng)
        ids = [future.result() for future in accepted]
    for process in (deployment.video, *deployment.gateways):
        process.wait_ready()
    ended = _wait_for_all(deployment.gateways[0], ids)
    deployment.restart_gateways()
    everything = _all_jobs(deployment.gateways[0])
    until(lambda: not _left_renders(deployment), 30, lambda: f"renders are left: {_left_renders(deployment)}")
    # By job and process of the service: one that was killed takes its finished videos along, and the next renders anew.
    completions = Counter((deployment.folder / "completions").read_text().splitlines())
    return Report(
        jobs=jobs, kills=dict(killed), seconds=round(time.monotonic() - began, 1),
        states=dict(Counter(job["state"] for job in everything)),
        reasons=dict(Counter(job["error"]["code"] for job in everything if job["error"])),
        lost=[job_id for job_id in ids if ended.get(job_id, {}).get("state") not in ENDED],
        rendered_twice=[line.split()[0] for line, times in completions.items() if times > 1],
        untrue=[why for job in everything if (why := _untruth(deployment, job))],
        orphans=_orphans(deployment, everything),
    )


def _submit(deployment: Deployment, n: int, at: float) -> str:
    """Post until an answer comes; the key makes every try the same job."""
    time.sleep(max(0.0, at - time.monotonic()))
    body: dict[str, Any] = {"prompt": f"kite {n}", "seed": n, "steps": 3 + n % 6}
    if n % 3 == 0:
        body["image"] = picture_of(n)
    said = "nothing"
    for attempt in range(200):
        gateway = deployment.gateways[(n + attempt) % len(deployment.gateways)]
        with suppress(httpx.TransportError):
            answer = HTTP.post(
                f"{gateway.url}/generate", json=body, headers={"Idempotency-Key": f"storm-{n}"}, timeout=20
            )
            if answer.is_success:
                return answer.json()["id"]
            said = answer.text
            assert answer.status_code in (429, 500, 502, 503), said
        time.sleep(0.25)
    raise AssertionError(f"job {n} was never accepted; the last answer was {said}")


def picture_of(n: int) -> str:
    """A small picture in base64, another one for each `n`."""
    image, out = Image.new("RGB", (96, 72), (n * 37 % 256, n * 11 % 256, 90)), io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _kill(deployment: Deployment, kills: int, between_s: float, rng: random.Random) -> Counter[str]:
    killed: Counter[str] = Counter()
    for _ in range(kills):
        time.sleep(rng.uniform(0.3, 1.7) * between_s)
        gateway = rng.choice(deployment.gateways)
        kind, kill = rng.choice((
            ("gateway", gateway.kill), ("video service", deployment.video.kill),
            ("video worker", deployment.video.kill_children),
        ))
        kill()
        killed[kind] += 1
    return killed


def _wait_for_all(gateway: KeptProcess, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    ended: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=gateway.url, timeout=60) as http:
        deadline = time.monotonic() + 60 + len(ids)
        for job_id in ids:
            while time.monotonic() < deadline:
                job = http.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json()
                if job.get("state", "lost") not in ("queued", "running"):
                    ended[job_id] = job
                    break
    return ended


def _all_jobs(gateway: KeptProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"limit": "100", **cursor}
        page = HTTP.get(f"{gateway.url}/v1/jobs", params=query, timeout=30).json()
        found += page["data"]
        if not page["next_cursor"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


def _untruth(deployment: Deployment, job: dict[str, Any]) -> str | None:
    """What the job says that is not so."""
    if job["state"] == "completed":
        answer = HTTP.get(f"{deployment.gateways[0].url}{job['urls']['content']}", timeout=30)
        wanted = f"{job['actual_prompt']} {job['parameters']['seed']}".encode() * 100
        if answer.content != wanted or hashlib.sha256(wanted).hexdigest() != job["video"]["sha256"]:
            return f"{job['id']}: completed, but its video is not what was asked for"
        return None
    if job["state"] == "failed" and job["error"]["code"] in TRUE_REASONS and job["error"]["detail"]:
        return None
    return f"{job['id']}: {job['state']} {job['error']}"


def _left_renders(deployment: Deployment) -> list[str]:
    folder = deployment.folder / "video" / "video"
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _orphans(deployment: Deployment, jobs: Sequence[dict[str, Any]]) -> list[str]:
    state = {job["id"]: job["state"] for job in jobs}
    root = deployment.folder / "data" / "gateway" / "files"
    paths = [path for path in root.rglob("*") if path.relative_to(root).parts[0] not in (OWNERS, TRASH)]
    return [
        str(path.relative_to(root)) for path in paths
        if path.relative_to(root).parts[0] not in state or path.name.endswith(".part")
        or (path.name == "video.mp4" and state[path.parent.name] != "completed")
    ]
