"""The last file here, for its test ends the stack that all others share."""

import signal
from pathlib import Path

import pytest

from tests.e2e.stack import LONG, Stack, running, wait_for_line, wait_gone

pytestmark = pytest.mark.slow


def test_ctrl_c_during_a_render_ends_every_process_of_serve(stack: Stack, cat: Path, tmp_path: Path) -> None:
    stack.wait_ready()
    arguments = ("generate", str(cat), *LONG, "--output", str(tmp_path / "none.mp4"))
    with running(*arguments, environment=stack.environment) as (_, lines):
        wait_for_line(lines, r"step [1-9]\d*/")
        processes = stack.processes()
        assert len(processes) >= 5
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(60) == 0
    assert wait_gone(processes, limit_s=30) == []
