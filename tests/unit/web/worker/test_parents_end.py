"""A worker ends with its parent, and a parent without its supervisor: real processes."""

import signal
import sys
from pathlib import Path

import psutil

from tests.unit.web.worker.test_supervisor import SCRIPTED


def parent(folder: Path, work: str, on_progress: str) -> list[str]:
    """The command of a process that prints its worker's pid and does `work`."""
    program = folder / "parent.py"
    program.write_text(
        "import asyncio\nfrom web.worker.supervisor import Supervisor\n"
        "async def main():\n"
        f"    supervisor = Supervisor({SCRIPTED!r}, 'ready', name='x')\n"
        "    supervisor.start()\n    await supervisor.ready()\n"
        "    print(supervisor.worker_pid, flush=True)\n"
        f"    await asyncio.wait([asyncio.ensure_future(supervisor.do({work!r}, on_progress={on_progress}))])\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    return [sys.executable, str(program)]


def test_a_worker_whose_parent_is_killed_ends_too(tmp_path: Path):
    with psutil.Popen(parent(tmp_path, "hang", "print"), stdout=-1) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        process.kill()
    worker.wait(timeout=30)


def test_a_supervisor_that_crashes_ends_its_process(tmp_path: Path):
    with psutil.Popen(parent(tmp_path, "slow", "lambda step: 1 / 0"), stdout=-1, stderr=-3) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        assert process.wait(timeout=30) == -signal.SIGTERM
    worker.wait(timeout=30)
