"""Laws of the supervisor, kept with real child processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from gateway.cli.serving.stack import ServiceSpec, StackError
from gateway.cli.serving.supervisor import Patience, Supervisor, running_stack
from tests.support.processes import free_port

SCRIPT = Path(__file__).with_name("small_service.py")
QUICK = Patience(start_s=60, stop_s=0.7, poll_s=0.02, first_backoff_s=0.05, max_backoff_s=0.1, max_restarts=2)


def small(name: str, *manners: str) -> ServiceSpec:
    port = free_port()
    command = (sys.executable, str(SCRIPT), str(port), *manners)
    return ServiceSpec(name=name, command=command, host="127.0.0.1", port=port, port_variable=f"{name.upper()}_PORT")


class Heard:
    """Collects what the children say."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, service: str, line: str) -> None:
        self.lines.append((service, line))

    def pids(self, word: str = "pid", of: str | None = None) -> list[int]:
        said = (line for who, line in self.lines if of in (None, who) and line.startswith(f"{word} "))
        return [int(line.split()[1]) for line in said]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(law: Callable[[], bool], limit_s: float = 30.0) -> bool:
    until = time.monotonic() + limit_s
    while not law() and time.monotonic() < until:
        time.sleep(0.02)
    return law()


async def ready(stack: Supervisor) -> None:
    await stack.wait_ready(lambda _: None)


async def test_every_process_is_gone_after_the_block_even_workers_of_workers() -> None:
    heard = Heard()
    async with running_stack([small("gateway"), small("video", "has-a-worker")], os.environ, heard, QUICK) as stack:
        await ready(stack)
        pids = heard.pids() + heard.pids("worker")
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
    assert eventually(lambda: not any(alive(pid) for pid in pids))


async def test_a_child_that_ignores_sigterm_is_killed_when_the_patience_ends() -> None:
    heard = Heard()
    async with running_stack([small("video", "ignores-sigterm")], os.environ, heard, QUICK) as stack:
        await ready(stack)
        began = time.monotonic()
    assert QUICK.stop_s <= time.monotonic() - began < QUICK.stop_s + 15
    assert not alive(heard.pids()[0])


async def test_a_second_signal_during_the_stop_kills_at_once_and_leaves_nothing() -> None:
    heard = Heard()
    patient = Patience(stop_s=30, poll_s=0.02)
    up = asyncio.Event()

    async def serve() -> None:
        async with running_stack([small("video", "ignores-sigterm")], os.environ, heard, patient) as stack:
            await ready(stack)
            up.set()
            await stack.until_failure()

    serving = asyncio.create_task(serve())
    await up.wait()
    began = time.monotonic()
    serving.cancel()
    await asyncio.sleep(0.2)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert time.monotonic() - began < 20, "not the 30 s of an orderly stop"
    assert not alive(heard.pids()[0])


async def kill_whenever_it_lives(heard: Heard, name: str, times: int) -> None:
    """Kill the first `times` processes of a service, each once it has said its pid."""
    for number in range(times):
        async with asyncio.timeout(60):
            while len(heard.pids(of=name)) <= number:  # noqa: ASYNC110 - the word comes from another process
                await asyncio.sleep(0.02)
        os.kill(heard.pids(of=name)[number], signal.SIGKILL)


async def test_a_child_that_dies_is_started_again() -> None:
    heard = Heard()
    async with running_stack([small("vl")], os.environ, heard, QUICK) as stack:
        await ready(stack)
        await kill_whenever_it_lives(heard, "vl", times=1)
        assert await asyncio.to_thread(eventually, lambda: len(heard.pids()) == 2)
        await ready(stack)
    assert any("vl died (killed by SIGKILL" in line for _, line in heard.lines)


async def test_a_child_that_dies_again_and_again_is_given_up_by_name() -> None:
    heard = Heard()
    async with running_stack([small("vl"), small("video")], os.environ, heard, QUICK) as stack:
        await ready(stack)
        await kill_whenever_it_lives(heard, "vl", times=QUICK.max_restarts + 1)
        with pytest.raises(StackError, match="vl died 3 times in a row, the last time: killed by SIGKILL"):
            await asyncio.wait_for(stack.until_failure(), 60)
        assert alive(heard.pids(of="video")[0])
    assert not any(alive(pid) for pid in heard.pids())


async def test_a_service_that_cannot_start_ends_the_others_and_its_last_words_are_told() -> None:
    heard = Heard()
    with pytest.raises(StackError, match=r"(?s)video could not start: exit code 1.*the checkpoint is missing"):
        async with running_stack([small("vl"), small("video", "refuses-to-start")], os.environ, heard, QUICK) as stack:
            await ready(stack)
    assert not any(alive(pid) for pid in heard.pids())


async def test_a_service_that_answers_with_a_problem_is_waited_for_under_its_own_words_and_not_for_ever() -> None:
    said: list[Mapping[str, Sequence[str]]] = []
    patience = Patience(start_s=1, stop_s=0.7, poll_s=0.02)
    async with running_stack([small("gateway", "is-unwell")], os.environ, Heard(), patience) as stack:
        for _ in range(60):
            with pytest.raises(StackError, match="Not ready after 1 s"):
                await stack.wait_ready(said.append)
            if said[-1] != {"gateway": ["starting"]}:  # its process may take longer than the patience to answer at all
                break
    assert said[-1] == {"gateway": ["The log has the cause."]}


async def test_a_service_that_is_stuck_is_given_up_at_once_with_its_reason_and_ends_the_others() -> None:
    heard = Heard()
    began = time.monotonic()
    with pytest.raises(StackError, match=r"video cannot become ready: The checkpoint lacks its vae\."):
        async with running_stack([small("vl"), small("video", "is-stuck")], os.environ, heard, QUICK) as stack:
            await ready(stack)
    assert time.monotonic() - began < QUICK.start_s / 2
    assert not any(alive(pid) for pid in heard.pids())


async def test_a_taken_port_is_refused_before_anything_starts() -> None:
    heard = Heard()
    spec = small("vl")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", spec.port))
        taken.listen()
        with pytest.raises(StackError, match=rf"port {spec.port}.*already in use.*VL_PORT="):
            async with running_stack([small("gateway"), spec], os.environ, heard, QUICK):
                pytest.fail("started in spite of the taken port")
    assert heard.lines == []


async def test_a_line_longer_than_the_buffer_does_not_block_the_child() -> None:
    heard = Heard()
    async with running_stack([small("vl", "shouts")], os.environ, heard, QUICK) as stack:
        await ready(stack)
    assert sum(line.count("x") for _, line in heard.lines) == 3_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_sigkill_of_the_supervisor_leaves_no_child() -> None:
    spec = small("video")
    program = (
        "import asyncio, os, sys\n"
        "from gateway.cli.serving.stack import ServiceSpec\n"
        "from gateway.cli.serving.supervisor import running_stack\n"
        "async def main():\n"
        f"    spec = ServiceSpec(name='video', command={spec.command!r}, host='127.0.0.1', port={spec.port},"
        " port_variable='VIDEO_PORT')\n"
        "    async with running_stack([spec], os.environ, lambda _, line: print(line, flush=True)) as stack:\n"
        "        await stack.until_failure()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[1])
        assert alive(child)
        parent.kill()
        assert eventually(lambda: not alive(child))
