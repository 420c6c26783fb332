"""Each service is taken away while jobs wait, and comes back: all of them must complete.

    python -m bench.outage [--jobs 40] [--away-s 60] [--postgres] [--instant] [--output bench/results/NAME.json]

The services are the real ones with the embedded models; with `--instant`, ones that compute nothing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.postgres import postgres_server
from tests.processes import KeptProcess, free_port, gateway_process
from tests.storm import ENDED, picture_of

_NAMES = ("vl_service", "video_service")


def main() -> int:
    """Take each away once; 0 where every job was completed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--away-s", type=float, default=60.0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--instant", action="store_true")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    figures: dict[str, Any] = {"database": "postgres" if asked.postgres else "sqlite", "instant": asked.instant}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outage-", ignore_cleanup_errors=True)))
        url = stack.enter_context(postgres_server()).new_database() if asked.postgres else None
        services = {name: _service(name, folder, instant=asked.instant) for name in _NAMES}
        gateway = gateway_process(
            folder, "gateway", services["vl_service"].url, services["video_service"].url, url, GATEWAY_CONCURRENCY="2"
        )
        for process in (*services.values(), gateway):
            stack.callback(process.kill)
            process.start()
        gateway.wait_ready()
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as http:
            _wait(http, [_submit(http, 0)])  # the models are known from now on
            for name, process in services.items():
                figures[name] = _outage(http, process, asked.jobs, asked.away_s)
    figures["load_average_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(figures, indent=2))
    if asked.output:
        asked.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures[name]["after"] == {"completed": asked.jobs} for name in _NAMES) else 1


def _service(name: str, folder: Path, *, instant: bool) -> KeptProcess:
    port, other = free_port(), free_port()
    if instant:  # the process has both; the other half of each is not used
        ports = (port, other) if name == "vl_service" else (other, port)
        return KeptProcess(name, ["-m", "bench.instant_services", *map(str, ports)], port, folder, {})
    settings = {"VL_PORT" if name == "vl_service" else "VIDEO_PORT": str(port), "STILLMOTION_DATA": str(folder / name)}
    return KeptProcess(name, ["-m", name], port, folder, settings)


def _outage(http: httpx.Client, service: KeptProcess, jobs: int, away_s: float) -> dict[str, Any]:
    service.kill()
    began = time.monotonic()
    ids = [_submit(http, number) for number in range(jobs)]
    time.sleep(max(0.0, began + away_s - time.monotonic()))
    before = [http.get(f"/v1/jobs/{job_id}").json() for job_id in ids]
    service.start()
    service.wait_ready()
    back = time.monotonic()
    after = _wait(http, ids)
    return {
        "away_s": round(away_s, 1), "while_away": dict(Counter(job["state"] for job in before)),
        "waiting_for": dict(Counter(job["progress"].get("waiting_for") or "nothing" for job in before)),
        "after": dict(Counter(job["state"] for job in after)),
        "last_completed_s_after_return": round(time.monotonic() - back, 1),
        "reasons": dict(Counter(job["error"]["code"] for job in after if job["error"])),
    }


def _submit(http: httpx.Client, number: int) -> str:
    body: dict[str, Any] = {"prompt": f"kite {number}", "seed": number, "size": "128x128", "num_frames": 5, "steps": 1}
    if number % 2 == 0:
        body["image"] = picture_of(number)
    answer = http.post("/generate", json=body)
    if answer.status_code != 202:
        raise RuntimeError(f"job {number} was not accepted: {answer.text}")
    return str(answer.json()["id"])


def _wait(http: httpx.Client, ids: list[str]) -> list[dict[str, Any]]:
    ended: list[dict[str, Any]] = []
    for job_id in ids:
        deadline = time.monotonic() + 600
        while (job := http.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json())["state"] not in ENDED:
            if time.monotonic() > deadline:
                break
        ended.append(job)
    return ended


if __name__ == "__main__":
    sys.exit(main())
