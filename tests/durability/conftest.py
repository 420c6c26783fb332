"""What all tests of dying processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.model_services import Services, running_services


@pytest.fixture(scope="package")
def vl() -> Iterator[Services]:
    with running_services() as services:
        yield services


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name alone: the scripted worker reads no checkpoint."""
    return tmp_path_factory.mktemp("model") / "wan"
