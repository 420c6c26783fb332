"""The gateway under load, against services that answer at once: acceptance, overhead, pages, watchers, memory.

    python -m bench.gateway_load [--jobs 10000] [--watchers 500] [--postgres] [--output bench/results/NAME.json]
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.postgres import postgres_server
from tests.support.processes import KeptProcess, free_port, gateway_process, until

BARS = {
    "acknowledge_p50_ms": 15.0, "overhead_p50_ms": 150.0, "accepted_per_s": 150.0, "page_p95_ms": 50.0,
    "rss_mib": 300.0,
}
_AT_ONCE = 16


class Memory:
    """Resident memory of a process, looked at twice a second, and the processor time that it has used."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.seen: list[float] = []

    def cpu_ms(self) -> float:
        """Milliseconds of processor time so far: on a machine that others use, too, it says more than the clock."""
        used = self._process.cpu_times()
        return (used.user + used.system) * 1000

    async def watch(self) -> None:
        while True:
            self.seen.append(self._process.memory_info().rss / 2**20)
            await asyncio.sleep(0.5)


async def measure(gateway: KeptProcess, *, jobs: int, watchers: int) -> dict[str, Any]:
    """All figures of one gateway."""
    memory = Memory(gateway.pid)
    looking = asyncio.create_task(memory.watch())
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False, limits=limits) as http:
        try:
            await _one_after_another(http, 20)  # the first requests of a process prepare statements and code paths
            used = memory.cpu_ms()
            quiet = await _one_after_another(http, 200)
            quiet["cpu_ms_a_job"] = round((memory.cpu_ms() - used) / 200, 2)
            began, used = len(memory.seen), memory.cpu_ms()
            crowd = await _all_at_once(http, jobs)
            crowd["cpu_ms_an_accept"] = round((memory.cpu_ms() - used) / jobs, 2)  # and the work that went on meanwhile
            watched = await _watched(http, watchers)
            crowd |= await _all_end(http, jobs)
        finally:
            looking.cancel()
    return {
        **quiet, **crowd, **watched, "rss_before_mib": round(memory.seen[began - 1], 1),
        "rss_mib": round(max(memory.seen), 1), "rss_after_mib": round(memory.seen[-1], 1),
    }


async def _one_after_another(http: httpx.AsyncClient, count: int) -> dict[str, float]:
    acknowledged, overheads = [], []
    for _ in range(count):
        began = time.perf_counter()
        answer = await http.post("/generate", json={"prompt": "a kite"})
        acknowledged.append((time.perf_counter() - began) * 1000)
        job = (await http.get(f"/v1/jobs/{answer.json()['id']}", params={"wait": 30})).json()
        assert job["state"] == "completed", job
        overheads.append(job["timings"]["total"] * 1000)
    return {
        "acknowledge_p50_ms": _p(acknowledged, 50), "acknowledge_p95_ms": _p(acknowledged, 95),
        "overhead_p50_ms": _p(overheads, 50), "overhead_p95_ms": _p(overheads, 95),
    }


async def _all_at_once(http: httpx.AsyncClient, jobs: int) -> dict[str, float]:
    numbers, latencies = iter(range(jobs)), []

    async def client() -> None:
        for n in numbers:
            began = time.perf_counter()
            answer = await http.post("/generate", json={"prompt": f"kite {n}"})
            assert answer.status_code == 202, answer.text
            latencies.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    pages = asyncio.create_task(_pages(http))
    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    seconds = time.perf_counter() - began
    pages.cancel()
    waiting = (await http.get("/v1/jobs", params={"limit": 1, "state": "queued"})).json()["data"]
    still = [await _timed(lambda: http.get("/v1/jobs", params={"limit": 20})) for _ in range(30)]
    return {
        "accepted_per_s": round(jobs / seconds, 1), "accept_p50_ms": _p(latencies, 50),
        "accept_p95_ms": _p(latencies, 95), "page_p50_ms": _p(still, 50), "page_p95_ms": _p(still, 95),
        "queue_when_accepted": (waiting[0]["progress"]["queue_position"] or 0) + 1 if waiting else 0,
    }


async def _pages(http: httpx.AsyncClient) -> None:
    while True:  # somebody looks at the list all the while
        await http.get("/v1/jobs", params={"limit": 20})
        await asyncio.sleep(0.5)


async def _watched(http: httpx.AsyncClient, watchers: int) -> dict[str, Any]:
    """Follow the oldest waiting jobs, each to its end, all at once, while everything else goes on."""
    ids: list[str] = []
    cursor: dict[str, Any] = {}
    while len(ids) < watchers:
        page = (await http.get("/v1/jobs", params={"limit": 100, **cursor})).json()
        ids += [job["id"] for job in page["data"] if job["state"] == "queued"]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    ids = ids[-watchers:]
    first: list[float] = []

    async def follow(job_id: str) -> bool:
        began, last = time.perf_counter(), ""
        async with http.stream("GET", f"/v1/jobs/{job_id}/events", timeout=httpx.Timeout(20, read=900)) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event:"):
                    if not last:
                        first.append((time.perf_counter() - began) * 1000)
                    last = line.removeprefix("event:").strip()
        return last == "completed"

    following = [asyncio.create_task(follow(job_id)) for job_id in ids]
    until_first = time.perf_counter()
    while len(first) < len(ids) and time.perf_counter() - until_first < 60:
        await asyncio.sleep(0.05)
    pages = [await _timed(lambda: http.get("/v1/jobs", params={"limit": 20})) for _ in range(20)]
    ends = await asyncio.gather(*following)
    return {
        "watchers": len(ids), "watchers_that_saw_the_end": sum(ends), "first_event_p95_ms": _p(first, 95),
        "page_while_watched_p50_ms": _p(pages, 50),
    }


async def _all_end(http: httpx.AsyncClient, jobs: int) -> dict[str, Any]:
    began = time.perf_counter()
    for state in ("queued", "running"):
        while (await http.get("/v1/jobs", params={"limit": 1, "state": state})).json()["data"]:
            await asyncio.sleep(1)
    seconds = time.perf_counter() - began
    failed = (await http.get("/v1/jobs", params={"limit": 1, "state": "failed"})).json()["data"]
    completed, cursor = 0, {}
    while True:
        page = (await http.get("/v1/jobs", params={"limit": 100, "state": "completed", **cursor})).json()
        completed += len(page["data"])
        if not page["next_cursor"]:
            return {"completed": completed, "failed": len(failed), "waited_for_the_rest_s": round(seconds, 1)}
        cursor = {"cursor": page["next_cursor"]}


async def _timed(call: Callable[[], Awaitable[httpx.Response]]) -> float:
    began = time.perf_counter()
    assert (await call()).is_success
    return (time.perf_counter() - began) * 1000


def _p(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return round(values[0], 1) if values else 0.0
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)


def _against_bar(name: str, value: float) -> str:
    if name not in BARS:
        return ""
    kept = value >= BARS[name] if name == "accepted_per_s" else value <= BARS[name]
    return f"   bar {BARS[name]:g}: {'kept' if kept else 'MISSED'}"


def main() -> None:
    """Start everything, measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=2, help="2: what one video service gets by default")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-load-")))
        url = stack.enter_context(postgres_server(fsync=True)).new_database() if asked.postgres else None
        vl_port, video_port = free_port(), free_port()
        instant = KeptProcess(
            "instant", ["-m", "bench.instant_services", str(vl_port), str(video_port)], video_port, folder, {}
        )
        gateway = gateway_process(
            folder, "load", f"http://127.0.0.1:{vl_port}", f"http://127.0.0.1:{video_port}", url,
            GATEWAY_MAX_QUEUE="100000", GATEWAY_MAX_WAITS=str(asked.watchers), STILLMOTION_LOG_LEVEL="WARNING",
            GATEWAY_CONCURRENCY=str(asked.concurrency),
        )
        stack.callback(instant.kill)
        stack.callback(gateway.kill)
        instant.start()
        until(instant.ready, 30)
        gateway.start()
        gateway.wait_ready()
        load_before = os.getloadavg()[0]
        figures = asyncio.run(measure(gateway, jobs=asked.jobs, watchers=asked.watchers))
        with suppress(OSError):
            complaints = gateway.log.read_text().splitlines()
            figures["log_lines"] = len(complaints)
            print("\n".join(complaints[:5]))
    report = {
        "database": "postgres" if asked.postgres else "sqlite", "jobs": asked.jobs, "concurrency": asked.concurrency,
        "cpus": os.cpu_count(), "python": platform.python_version(), "load_average_before": round(load_before, 2),
        "load_average_after": round(os.getloadavg()[0], 2), **figures,
    }
    for name, value in report.items():
        print(f"{name:28}{value!s:>12}{_against_bar(name, value)}")
    if asked.output:
        asked.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
