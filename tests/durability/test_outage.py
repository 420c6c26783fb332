"""What a job needs goes away for longer than any call waits, and comes back. tests/unit/gateway/run/test_outages.py has
the short form, and what else may go away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

JOBS, AWAY_S = 12, 65


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_model_service_that_is_away_for_more_than_a_minute_delays_jobs_and_fails_none(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    command = ["-m", "bench.outage", "--instant", f"--jobs={JOBS}", f"--away-s={AWAY_S}", f"--output={told}"]
    run = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    for service in ("vl_service", "video_service"):
        figures = json.loads(told.read_text())[service]
        assert figures["while_away"].get("queued", 0) > 0, "nothing waited for it"
        assert figures["after"] == {"completed": JOBS}
