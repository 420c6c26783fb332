"""Laws of the start: what cannot serve says why in one sentence and ends, and has changed nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.database.errors import DatabaseDamaged
from gateway.settings import GatewaySettings
from gateway.start import check_start
from gateway.storage.deployment import open_database
from tests.unit.gateway.conftest import gateway_settings
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.storage.test_sweep import completed


@pytest.mark.parametrize(
    ("name", "left"),
    [("jobs", 0.0), ("jobs", 0.1), ("jobs", 0.5), ("dbos", 0.5), ("jobs", b"not a database")],
)
async def test_a_database_that_was_cut_is_not_taken_for_another_one(
    tmp_path: Path, services: Services, name: str, left: float | bytes
) -> None:
    settings = gateway_settings(tmp_path, services)
    [job_id] = await completed(settings, 1)
    database = settings.state_dir / f"{name}.sqlite"
    whole = database.read_bytes()
    cut = left if isinstance(left, bytes) else whole[:int(left * len(whole))]
    database.write_bytes(cut)
    with pytest.raises(DatabaseDamaged, match=str(database)):
        open_database(settings)
    assert database.read_bytes() == cut
    assert (settings.state_dir / "files" / job_id / "video.mp4").exists()


def test_a_data_folder_that_cannot_be_written_is_one_sentence() -> None:
    started = subprocess.run(
        [sys.executable, "-m", "gateway"], env={**os.environ, "STILLMOTION_DATA": "/proc/nowhere"},
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert started.returncode == 73
    [line] = started.stderr.splitlines()
    assert "The data folder /proc/nowhere (STILLMOTION_DATA) cannot be written" in json.loads(line)["message"]


@pytest.mark.parametrize(
    ("environment", "status", "sentence"),
    [
        ({}, 65, "was cut or damaged, and nothing was touched: restore it ("),
        ({"database_url": "postgresql://u:hidden@127.0.0.1:9/d"}, 75, "The database cannot be used now: "),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, environment: dict[str, str], status: int, sentence: str
) -> None:
    settings = GatewaySettings.model_validate({"data_dir": tmp_path, **environment})
    settings.state_dir.mkdir()
    settings.jobs_database_file.write_bytes(b"not a database")
    with pytest.raises(SystemExit) as ended:
        check_start(settings)
    assert ended.value.code == status
    [said] = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert sentence in said
    assert "\n" not in said
    assert "hidden" not in said
