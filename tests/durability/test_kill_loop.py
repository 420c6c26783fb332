"""Processes killed at random under load: no job is lost, rendered twice, ended untruthfully, or leaves a file."""

from pathlib import Path

import pytest

from tests.support.storm import Deployment, storm
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "gateways"), [
    pytest.param("sqlite", 1, marks=pytest.mark.full),  # tests/wire/test_gateway_crash.py has four kills of one
    ("postgres", 2),
])
def test_a_storm_of_kills_breaks_no_promise(
    kind: str, gateways: int, tmp_path: Path, vl: Services, model: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    deployment = Deployment(tmp_path, model, vl.vl_url, database_url=url, gateways=gateways)
    try:
        deployment.start()
        report = storm(deployment, jobs=20, kills=6, between_kills_s=0.7, seed=3)
    finally:
        deployment.stop()
    assert report.kept_every_promise, report
    assert sum(report.states.values()) == 20, report
    assert report.states.get("completed", 0) >= 15, report
