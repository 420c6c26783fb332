"""The `stillmotion` command as a user meets it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import av
import psutil
import pytest

from tests.e2e.conftest import Gateway
from tests.e2e.stack import (
    LONG,
    STILLMOTION,
    Stack,
    running,
    served,
    stack_environment,
    wait_for_line,
    wait_gone,
)

pytestmark = pytest.mark.slow

def stillmotion(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end against the shared stack."""
    return subprocess.run(
        [STILLMOTION, *arguments], env=stack.environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_generate_shows_what_was_seen_and_asked_and_the_seconds_and_writes_a_video(
    gateway: Gateway, stack: Stack, cat: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "cat.mp4"
    result = stillmotion(stack, "generate", str(cat), "--prompt", "slow zoom out", "--output", str(output))
    assert result.returncode == 0, result.stderr
    for word in ("caption", "prompt", "describing", "rendering", "seconds", "completed"):
        assert word in result.stdout
    with av.open(str(output)) as container:
        assert next(container.decode(video=0))
    assert [path.name for path in output.parent.iterdir()] == ["cat.mp4"]


def test_a_refusal_is_one_sentence_on_standard_error_and_exit_code_1(
    gateway: Gateway, stack: Stack, cat: Path, tmp_path: Path
) -> None:
    output = tmp_path / "none.mp4"
    result = stillmotion(stack, "generate", str(cat), "--model", "no-such-model", "--output", str(output))
    assert result.returncode == 1
    assert "no-such-model" in result.stderr
    assert "Traceback" not in result.stderr
    assert not output.exists()


def test_a_picture_that_is_not_there_is_named_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    for command in (("generate", "nowhere.jpg"), ("demo", "--image", "nowhere.jpg")):
        result = stillmotion(stack, *command)
        assert result.returncode == 1
        assert "nowhere.jpg does not exist" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_generate_cancels_the_job_on_the_server(
    gateway: Gateway, stack: Stack, cat: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "none.mp4"
    arguments = ("generate", str(cat), *LONG, "--output", str(output))
    with running(*arguments, environment=stack.environment) as (process, lines):
        wait_for_line(lines, r"step [1-9]\d*/")
        process.send_signal(number)
        rest = "".join(lines)
        assert process.wait(60) == 128 + number
    assert "Canceled job" in rest
    newest = gateway.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert gateway.wait_for_end(newest)["state"] == "canceled"
    assert list(tmp_path.iterdir()) == []


def test_demo_uses_the_stack_that_runs_and_leaves_it_running(gateway: Gateway, stack: Stack, tmp_path: Path) -> None:
    before = {process.pid for process in stack.processes()}
    output = tmp_path / "demo.mp4"
    result = stillmotion(stack, "demo", "--output", str(output), "--prompt", "slow zoom out")
    assert result.returncode == 0, result.stderr
    assert f"Using Stillmotion as it runs at {stack.url}" in result.stdout
    assert output.stat().st_size > 0
    assert {process.pid for process in stack.processes()} == before


def test_serve_on_a_taken_port_says_which_variable_to_change(stack: Stack) -> None:
    result = stillmotion(stack, "serve")
    assert result.returncode == 1
    assert stack.environment["GATEWAY_PORT"] in result.stderr
    assert "GATEWAY_PORT=" in result.stderr


def test_demo_from_nothing_makes_a_video_and_stops_all_it_started(tiny_checkpoint: Path, tmp_path: Path) -> None:
    environment = stack_environment(tiny_checkpoint, tmp_path / "data")
    output = tmp_path / "demo.mp4"
    with running("demo", "--output", str(output), environment=environment) as (process, lines):
        wait_for_line(lines, "Ready after")
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 4, "three services and the worker"
        rest = "".join(lines)
        assert process.wait(60) == 0, rest
    assert wait_gone(started, limit_s=30) == []
    with av.open(str(output)) as container:
        assert next(container.decode(video=0))


@pytest.mark.full  # tests/unit/cli/test_supervisor.py has it of small services
@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_checkpoint_that_can_never_load_ends_the_start_at_once_with_its_reason(
    tiny_checkpoint: Path, tmp_path: Path, command: str
) -> None:
    model = tmp_path / "half"
    shutil.copytree(tiny_checkpoint, model, ignore=shutil.ignore_patterns("transformer"))
    environment = stack_environment(model, tmp_path / "data")
    began = time.monotonic()
    result = subprocess.run(
        [STILLMOTION, command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 1, result.stdout
    assert "video cannot become ready: The checkpoint at" in result.stderr
    assert "lacks transformer/config.json, transformer/*.safetensors" in result.stderr
    assert "Traceback" not in result.stderr
    assert time.monotonic() - began < 200, "no wait of minutes"
    assert not (tmp_path / "out").exists()


@pytest.mark.full  # test_supervisor.py has it of small services, test_video_worker.py of a worker
def test_sigkill_of_serve_leaves_no_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with served(stack_environment(tiny_checkpoint, tmp_path / "data"), tmp_path) as own:
        until = time.monotonic() + 60
        while time.monotonic() < until and own.pid_of("video_service.worker") is None:
            time.sleep(0.05)
        processes = own.processes()
        assert len(processes) >= 5
        os.kill(own.process.pid, signal.SIGKILL)
        assert wait_gone(processes, limit_s=30) == []
