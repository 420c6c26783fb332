"""What tests of every kind may use."""

import gc
import logging
import os
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.support.postgres import PostgresServer, postgres_server
from web.logs import JsonFormatter

# Read when torch is imported, here and in what tests start: several processes share few cores, and a thread that waits
# for another spins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here plugs into pydantic; looking through the metadata of every installed package for what might is 50 ms of
# each of some hundred processes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class _FilesTogether(LoadScopeScheduling):
    """A file's tests run in one process, and so do those of a folder whose files share a fixture of half a minute."""

    _TOGETHER = ("tests/e2e", "tests/unit/engines", "tests/wire/one_service")
    _APART = ("test_embedded.py", "test_families.py", "test_tensorrt.py")  # long, and share none of it

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        rooms = (room for room in self._TOGETHER if file.startswith(f"{room}/") and not file.endswith(self._APART))
        return next(rooms, file)


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    # What was imported stays: looking through a million objects took a sixth of the time of imports.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _FilesTogether:
    return _FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files with slow tests first: one that came last would run alone, when the other processes have nothing left.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A service that is begun within a test sends all logs of the process where the test's standard error was."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server, started by the first test that asks for it."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A new database on it."""
    return postgres.new_database()
