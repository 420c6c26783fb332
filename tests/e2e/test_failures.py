"""Processes die in the middle of the work: the job says so or completes, and the next one works."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

LONG = {"size": "160x160", "num_frames": "33", "steps": "50", "guidance_scale": "5"}


def kill(stack: Stack, module: str) -> int:
    pid = stack.pid_of(module)
    assert pid is not None, f"nothing runs {module}"
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_another(stack: Stack, module: str, than: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and stack.pid_of(module) in (None, than):
        time.sleep(0.1)
    assert stack.pid_of(module) not in (None, than)


@pytest.mark.full  # tests/wire/test_gateway_video.py has it of a scripted worker, whose next one starts in a second
def test_a_killed_video_worker_fails_its_job_with_the_reason_or_the_job_completes_and_the_next_one_works(
    gateway: Gateway, stack: Stack, cat: Path
) -> None:
    job = gateway.wait_for_step(gateway.submit(cat, **LONG), step=2)
    pid = kill(stack, "video_service.worker")
    ended = gateway.wait_for_end(job)
    if ended["state"] == "failed":
        assert "worker" in ended["error"]["detail"].lower()
        assert "SIGKILL" in ended["error"]["detail"]
    else:
        assert ended["state"] == "completed"
    wait_for_another(stack, "video_service.worker", pid)
    assert gateway.render(cat)["state"] == "completed"


@pytest.mark.full  # test_outages.py has the job that waits, and the killed gateway below the service that comes back
def test_a_job_whose_vl_service_is_gone_waits_for_it_and_completes(
    gateway: Gateway, stack: Stack, cat: Path
) -> None:
    pid = kill(stack, "vl_service")
    began = time.monotonic()
    ended = gateway.render(cat, instruction="As no test has asked before: the prompt is remembered nowhere.")
    assert time.monotonic() - began < 240
    assert ended["state"] == "completed"
    wait_for_another(stack, "vl_service", pid)
    stack.wait_ready()
    assert gateway.render(cat)["state"] == "completed"


def test_a_killed_gateway_comes_back_and_finishes_the_job_it_had(gateway: Gateway, stack: Stack, cat: Path) -> None:
    job = gateway.wait_for_step(gateway.submit(cat, **LONG), step=2)
    pid = kill(stack, "gateway")
    wait_for_another(stack, "gateway", pid)
    stack.wait_ready()
    assert gateway.wait_for_end(job)["state"] == "completed"
