"""What a job needs is taken away while jobs wait, and comes back: all of them must complete.

    python -m bench.outage [--jobs 40] [--away-s 60] [--only PART …] [--postgres] [--instant] [--output FILE.json]

Parts: vl_service, video_service; with --postgres also database; with --bucket also bucket (a real S3 server).
The services are the real ones with the embedded models; with `--instant`, ones that compute nothing.
"""

import argparse
import base64
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.support.postgres import postgres_server
from tests.support.processes import KeptProcess, free_port, gateway_process
from tests.support.relay import Relay, relay_to
from tests.support.storm import ENDED, picture_of

_SERVICES = ("vl_service", "video_service")
_ASK_EVERY_S = 2.0
_PNG = base64.b64decode(picture_of(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that a job needs. `jobs_before`: they are accepted before it goes, for none is without it."""

    go: Callable[[], None]
    come: Callable[[], None]
    jobs_before: bool


def main() -> int:
    """Take each away once; 0 where every job was completed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--away-s", type=float, default=60.0)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--instant", action="store_true")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    figures: dict[str, Any] = {"database": "postgres" if asked.postgres else "sqlite", "instant": asked.instant}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outage-", ignore_cleanup_errors=True)))
        gateway, parts = _deployment(stack, folder, asked)
        with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as http:
            _wait(http, [_submit(http, 0)])  # the models are known from now on
            for name in asked.only or parts:
                figures[name] = _outage(http, parts[name], asked.jobs, asked.away_s)
                print(name, json.dumps(figures[name]), flush=True)
    figures["load_average_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(figures, indent=2))
    if asked.output:
        asked.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures[name]["after"] == {"completed": asked.jobs} for name in asked.only or parts) else 1


def _deployment(stack: ExitStack, folder: Path, asked: argparse.Namespace) -> tuple[KeptProcess, dict[str, Part]]:
    services = {name: _service(name, folder, instant=asked.instant) for name in _SERVICES}
    parts = {name: _stopped(service) for name, service in services.items()}
    url: str | None = None
    settings = {"GATEWAY_CONCURRENCY": "2"}
    if asked.postgres:
        line = stack.enter_context(relay_to(stack.enter_context(postgres_server()).new_database()))
        url, parts["database"] = line.url, _cut(line)
    if asked.bucket:
        line = stack.enter_context(relay_to(_s3_server(stack)))
        settings |= {
            "GATEWAY_ARTIFACTS_URL": "s3://artifacts/videos", "AWS_ENDPOINT_URL": line.url, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        }
        parts["bucket"] = _cut(line)
    gateway = gateway_process(
        folder, "gateway", services["vl_service"].url, services["video_service"].url, url, **settings
    )
    for process in (*services.values(), gateway):
        stack.callback(process.kill)
        process.start()
    gateway.wait_ready()
    return gateway, parts


def _service(name: str, folder: Path, *, instant: bool) -> KeptProcess:
    port, other = free_port(), free_port()
    if instant:  # the process has both; the other half of each is not used
        ports = (port, other) if name == "vl_service" else (other, port)
        return KeptProcess(name, ["-m", "bench.instant_services", *map(str, ports)], port, folder, {})
    settings = {"VL_PORT" if name == "vl_service" else "VIDEO_PORT": str(port), "STILLMOTION_DATA": str(folder / name)}
    return KeptProcess(name, ["-m", name], port, folder, settings)


def _stopped(service: KeptProcess) -> Part:
    def come() -> None:
        service.start()
        service.wait_ready()

    return Part(go=service.kill, come=come, jobs_before=False)


def _cut(line: Relay) -> Part:
    return Part(go=line.cut, come=line.mend, jobs_before=True)


def _s3_server(stack: ExitStack) -> str:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    stack.callback(moto.stop)
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    s3: Any = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    s3.create_bucket(Bucket="artifacts")
    return url


def _outage(http: httpx.Client, part: Part, jobs: int, away_s: float) -> dict[str, Any]:
    ids = [_submit(http, number) for number in range(jobs)] if part.jobs_before else []
    part.go()
    began = time.monotonic()
    ids = ids or [_submit(http, number) for number in range(jobs)]
    told = _callers_meanwhile(http, began + away_s)
    before = [_job(http, job_id) for job_id in ids]
    part.come()
    back = time.monotonic()
    after = _wait(http, ids)
    return {
        "away_s": round(away_s, 1), "callers_were_told": told,
        "while_away": dict(Counter(job.get("state", job.get("code")) for job in before)),
        "waiting_for": dict(Counter(job.get("progress", {}).get("waiting_for") or "nothing" for job in before)),
        "after": dict(Counter(job["state"] for job in after)),
        "last_completed_s_after_return": round(time.monotonic() - back, 1),
        "reasons": dict(Counter(job["error"]["code"] for job in after if job["error"])),
    }


def _callers_meanwhile(http: httpx.Client, until: float) -> dict[str, Any]:
    """What callers are answered: those who look at jobs, and those who upload a picture."""
    answers: Counter[str] = Counter()
    slowest_s = {"look": 0.0, "upload": 0.0}

    def ask(kind: str, call: Callable[[], httpx.Response]) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            answer = call()
            slowest_s[kind] = max(slowest_s[kind], round(time.monotonic() - began, 2))
            answers[f"{kind} {answer.status_code}" + (" Retry-After" if "Retry-After" in answer.headers else "")] += 1
            time.sleep(_ASK_EVERY_S)

    upload = threading.Thread(
        target=ask, args=("upload", lambda: http.post("/v1/files", files={"file": ("a.png", _PNG)}))
    )
    upload.start()
    ask("look", lambda: http.get("/v1/jobs", params={"limit": 1}))
    upload.join()
    return {"answers": dict(answers), "slowest_s": slowest_s}


def _submit(http: httpx.Client, number: int) -> str:
    body: dict[str, Any] = {"prompt": f"kite {number}", "seed": number, "size": "128x128", "num_frames": 5, "steps": 1}
    if number % 2 == 0:
        body["image"] = picture_of(number)
    answer = http.post("/generate", json=body)
    if answer.status_code != 202:
        raise RuntimeError(f"job {number} was not accepted: {answer.text}")
    return str(answer.json()["id"])


def _job(http: httpx.Client, job_id: str, wait_s: int = 0) -> dict[str, Any]:
    return http.get(f"/v1/jobs/{job_id}", params={"wait": wait_s}).json()


def _wait(http: httpx.Client, ids: list[str]) -> list[dict[str, Any]]:
    ended: list[dict[str, Any]] = []
    for job_id in ids:
        deadline = time.monotonic() + 600
        while (job := _job(http, job_id, 20)).get("state") not in ENDED:
            if time.monotonic() > deadline:
                break
            if "state" not in job:  # the gateway has not noticed yet that its database is back
                time.sleep(0.2)
        ended.append(job)
    return ended


if __name__ == "__main__":
    sys.exit(main())
