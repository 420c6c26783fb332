"""What a job writes into Postgres: commits, rows and bytes of its log, beside what an idle gateway writes.

    python -m bench.database_writes [--jobs 60] [--output bench/results/database_writes.json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg

from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.postgres import postgres_server
from tests.support.processes import HTTP, gateway_process, scripted_video_process
from tests.support.storm import picture_of
from tests.unit.gateway.model_services import running_services

_COUNTS = """SELECT xact_commit, tup_inserted, tup_updated, tup_deleted, tup_fetched,
             pg_current_wal_lsn() - '0/0'::pg_lsn FROM pg_stat_database
             WHERE datname = current_database()"""
_NAMES = ("commits", "inserted", "updated", "deleted", "fetched", "wal_bytes")
_IDLE_S = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="writes-", ignore_cleanup_errors=True)))
        url = stack.enter_context(postgres_server()).new_database()
        vl = stack.enter_context(running_services())
        video = scripted_video_process(folder, save_tiny_wan(folder / "wan"))
        gateway = gateway_process(folder, "only", vl.vl_url, video.url, url)
        for process in (video, gateway):
            stack.callback(process.kill)
            process.start()
        for process in (video, gateway):
            process.wait_ready()
        _carry_out(gateway.url, 4)  # what happens once
        idle = _measured(url, lambda: time.sleep(_IDLE_S))
        busy = _measured(url, lambda: _carry_out(gateway.url, asked.jobs))
    figures = {
        "jobs": asked.jobs, "with_a_picture": asked.jobs // 2, "seconds": round(busy["seconds"], 1),
        **{f"idle_{name}_per_s": round(idle[name] / idle["seconds"], 2) for name in _NAMES},
        **{
            f"{name}_per_job": round((busy[name] - idle[name] / idle["seconds"] * busy["seconds"]) / asked.jobs, 1)
            for name in _NAMES
        },
    }
    for name, value in figures.items():
        print(f"{name:24}{value}")
    if asked.output:
        asked.output.write_text(json.dumps(figures, indent=2) + "\n")


def _measured(url: str, work: Callable[[], None]) -> dict[str, float]:
    before, began = _counts(url), time.monotonic()
    work()
    seconds = time.monotonic() - began
    time.sleep(2.0)  # until each session has reported what it did
    after = _counts(url)
    return {name: after[name] - before[name] for name in _NAMES} | {"seconds": seconds + 2.0}


def _counts(url: str) -> dict[str, float]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(_COUNTS).fetchone()
    assert row is not None
    return dict(zip(_NAMES, map(float, row), strict=True))


def _carry_out(gateway: str, jobs: int) -> None:
    """Half of them with a picture, each described and rendered."""
    ids = []
    for n in range(jobs):
        body = {"prompt": f"kite {n}", "seed": n, "steps": 10} | ({"image": picture_of(n)} if n % 2 else {})
        answer = HTTP.post(f"{gateway}/generate", json=body, timeout=60)
        answer.raise_for_status()
        ids.append(answer.json()["id"])
    for job_id in ids:
        job = HTTP.get(f"{gateway}/v1/jobs/{job_id}", params={"wait": 120}, timeout=150).json()
        assert job["state"] == "completed", job


if __name__ == "__main__":
    main()
