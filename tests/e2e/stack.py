"""The real thing for tests: `stillmotion serve` with three processes on free ports and a tiny checkpoint."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from tests.support.processes import HTTP
from web.worker.lifeline import die_with_parent

STILLMOTION = str(Path(sys.executable).with_name("stillmotion"))
START_S = 240
LONG = ("--size", "160x160", "--num-frames", "33", "--steps", "50", "--guidance-scale", "5")
"""Arguments of a render that has a middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A served Stillmotion, seen from outside."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path
    log: Path
    environment: Mapping[str, str]

    def processes(self) -> list[psutil.Process]:
        """The supervisor, the services and their workers."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def pid_of(self, module: str) -> int | None:
        """The process that runs `python -m <module>`, if there is one now."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if "-m" in command and command[command.index("-m") + 1] == module:
                    return process.pid
        return None

    def wait_ready(self) -> None:
        """Wait for the gateway's `/readyz`."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                if HTTP.get(f"{self.url}/readyz", timeout=10).status_code == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"the stack is not ready:\n{self.log.read_text()[-4000:]}")


def stack_environment(checkpoint: Path, data: Path, **more: str) -> dict[str, str]:
    """This process's environment, with free ports, the tiny checkpoint and a data folder of its own."""
    ports = iter(free_ports(3))
    named = {name: str(next(ports)) for name in ("GATEWAY_PORT", "VL_PORT", "VIDEO_PORT")}
    # One thread each: models this small only lose by more, and the tests share the machine with three of them.
    quiet = {"VIDEO_THREADS": "1", "VL_THREADS": "1", "OMP_NUM_THREADS": "1"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "STILLMOTION_"))}
    named["STUDIO_PORT"] = "0"  # without the page, but where a test asks for it
    return inherited | named | quiet | {"VIDEO_MODEL": str(checkpoint), "STILLMOTION_DATA": str(data)} | more


@contextmanager
def served(environment: Mapping[str, str], folder: Path) -> Iterator[Stack]:
    """Run `stillmotion serve` until the block ends; its log is `serve.log` in `folder`."""
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [STILLMOTION, "serve"], env=environment, stdout=stream, stderr=stream, start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),  # a killed test run leaves no stack behind
        )
        stack = Stack(
            process=process, url=f"http://127.0.0.1:{environment['GATEWAY_PORT']}",
            data=Path(environment["STILLMOTION_DATA"]), log=log, environment=environment,
        )
        try:
            yield stack
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()
            process.wait(10)


@contextmanager
def running(*arguments: str, environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A `stillmotion` command and the lines it prints; whatever the block does, it is dead afterwards."""
    process = subprocess.Popen(
        [STILLMOTION, *arguments], env=environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def wait_for_line(lines: Iterator[str], pattern: str) -> None:
    """Read on until a line matches. Which steps are told of is a matter of time: no line says every one."""
    read: list[str] = []
    for line in lines:
        read.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError(f"it ended without {pattern!r}:\n{''.join(read)}")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_gone(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """The processes that still live after `limit_s`; a dead one nobody waited for counts as gone."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        living = [process for process in processes if _lives(process)]
        if not living:
            return []
        time.sleep(0.05)
    return [process for process in processes if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
