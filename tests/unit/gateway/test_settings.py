"""What the settings make of what they are given."""

import sqlite3
from pathlib import Path

import pytest

from gateway.database.database import Database
from gateway.settings import GatewaySettings


@pytest.mark.parametrize("name", ["plain", "50%20 off", "what?", "#1", "a b", "\u00e4\u732b", "x%", "a:b@c"])
def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    settings = GatewaySettings.model_validate({"data_dir": tmp_path / name})
    Database(settings.jobs_database_url).close()
    path = tmp_path / name / "gateway" / "jobs.sqlite"
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert sqlite3.connect(path).execute("select count(*) from jobs").fetchone() == (0,)


def test_a_public_url_names_this_server_and_its_prefix() -> None:
    given = {"public_url": "https://Video.example.com:8443/v", "hosts": "Gateway, *.a.b"}
    settings = GatewaySettings.model_validate(given)
    assert settings.called_as == ("gateway", "*.a.b", "video.example.com")
    assert settings.public_path == "/v"
