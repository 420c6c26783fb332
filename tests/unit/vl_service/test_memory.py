"""Memory over 10,000 requests: of the process that answers and of its worker, once the caches are full."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint
from tests.unit.vl_service.test_odd_input import described, said
from tests.unit.vl_service.test_process import children, running, wait_until

CALLS, WARM, AT_ONCE = 10_000, 1_000, 12
MOST_GROWTH = 24 * 2**20  # bytes, of either process, over nine tenths of the calls


def resident(pid: int) -> int:
    """Bytes of main memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.full
@pytest.mark.timeout(5400)
async def test_ten_thousand_requests_leave_no_memory_behind(tmp_path: Path) -> None:
    """Pictures and words of each call are its own, so that what is kept of them is bounded or nothing."""
    folder = save_tiny_checkpoint("qwen2_5_vl", tmp_path / "tiny")
    environment = {
        "VL_MODEL": str(folder), "VL_DEVICE": "cpu", "VL_THREADS": "1", "VL_SLOTS": "8", "VL_GREEDY": "true",
        "VL_FEATURE_CACHE_BYTES": str(2**20), "STILLMOTION_DATA": str(tmp_path), "STILLMOTION_LOG_LEVEL": "WARNING"}
    with running(environment) as (process, url):
        wait_until(f"{url}/readyz", 200)
        [worker] = children(process.pid)
        numbers, statuses, sizes = iter(range(CALLS)), dict[int, int](), list[tuple[int, int]]()
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            async def ask() -> None:
                for number in numbers:
                    path, body = (described, said)[number % 3 == 0](number)
                    body["seed"] = number
                    answer = await client.post(path, json=body)
                    statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                    if (number + 1) % 500 == 0:
                        sizes.append((resident(process.pid), resident(worker)))
                        shown = "  ".join(f"{size / 2**20:6.1f}" for size in sizes[-1])
                        print(f"{number + 1:6} calls  {time.monotonic() - began:6.0f} s  {shown} MiB", flush=True)

            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        assert children(process.pid) == [worker], "no worker was replaced"
    assert set(statuses) <= {200, 400}
    assert statuses[200] > 0.9 * CALLS
    warm, *later = sizes[WARM // 500 - 1:]
    grown = [max(one) - before for one, before in zip(zip(*later, strict=True), warm, strict=True)]
    print("grown by", [f"{size / 2**20:.1f} MiB" for size in grown])
    assert all(size < MOST_GROWTH for size in grown), sizes
