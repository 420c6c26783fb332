"""Writing: whoever meets others shares their commit, gets its own answer, and undoes nothing but its own."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from gateway.database.database import Database
from gateway.jobs.job import IllegalTransition, QueueFull
from gateway.jobs.store import JobStore
from tests.unit.gateway.jobs.test_store import new_job

R = TypeVar("R")


class Busy:
    """A database of which one writer holds the lock until told otherwise; it counts the commits of the others."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.commits = 0
        self._may_end = threading.Event()
        self._pool = ThreadPoolExecutor(20)
        holding = threading.Event()

        def hold(_: sa.Connection) -> None:
            holding.set()
            self._may_end.wait(20)

        self._holder = self._pool.submit(self.database.write, hold)
        assert holding.wait(20)
        event.listen(self.database.engine, "commit", self._count)

    def _count(self, _: sa.Connection) -> None:
        self.commits += 1

    def meanwhile(self, *writes: Callable[[], R]) -> list[Future[R]]:
        """What came of these, all of which began while the lock was held."""
        futures = [self._pool.submit(write) for write in writes]
        deadline = time.monotonic() + 20
        while len(self.database._pieces) < len(writes):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self._may_end.set()
        self._holder.result(20)
        self._pool.shutdown()
        return futures


@pytest.fixture
def busy(tmp_path: Path) -> Busy:
    return Busy(f"sqlite:///{tmp_path}/jobs.sqlite")


def test_writers_that_meet_share_one_commit_and_all_is_there(busy: Busy) -> None:
    store = JobStore(busy.database)
    jobs = [new_job(f"job{number}") for number in range(12)]
    added = busy.meanwhile(*(lambda job=job: store.add(job, 100) for job in jobs))
    assert {future.result().id for future in added} == {job.id for job in jobs}
    assert busy.commits == 2, "that of the writer before, and one for the twelve"
    assert len(store.page(100)) == 12


def test_one_that_is_refused_changes_nothing_and_leaves_the_others_theirs(busy: Busy) -> None:
    store = JobStore(busy.database)
    futures = busy.meanwhile(
        *(lambda number=number: store.add(new_job(f"job{number}"), 3) for number in range(5)),
    )
    refused = [future for future in futures if isinstance(future.exception(), QueueFull)]
    assert len(refused) == 2
    assert len(store.page(100)) == 3


def test_what_one_did_before_it_failed_is_undone_and_the_others_work_is_not(busy: Busy) -> None:
    store = JobStore(busy.database)

    def spoil(connection: sa.Connection) -> NoReturn:
        connection.exec_driver_sql("DELETE FROM jobs")
        raise ValueError("spoiled")

    futures = busy.meanwhile(
        lambda: store.add(new_job("first"), 9), lambda: busy.database.write(spoil),
        lambda: store.add(new_job("last"), 9), lambda: busy.database.write(spoil),
    )
    assert [type(future.exception()) for future in futures] == [type(None), ValueError, type(None), ValueError]
    assert {job.id for job in store.page(100)} == {"first", "last"}


def test_a_commit_that_fails_fails_all_who_shared_it(busy: Busy) -> None:
    store = JobStore(busy.database)

    def fail(connection: sa.Connection) -> None:
        if busy.commits > 1:
            raise OSError("disk full")

    event.listen(busy.database.engine, "commit", fail)
    futures = busy.meanwhile(*(lambda number=number: store.add(new_job(f"job{number}"), 9) for number in range(3)))
    assert [type(future.exception()) for future in futures] == [OSError] * 3
    event.remove(busy.database.engine, "commit", fail)
    assert store.page(100) == []


def test_an_error_of_one_alone_is_its_own(tmp_path: Path) -> None:
    store = JobStore(Database(f"sqlite:///{tmp_path}/jobs.sqlite"))
    job = store.add(new_job(), 10)
    with pytest.raises(IllegalTransition):
        store.move(job.id, "completed")
    assert store.get(job.id) == job
