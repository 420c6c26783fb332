"""Who lives, who is dead, and who takes over: one answer, also when many ask at once."""

import threading
from pathlib import Path

import pytest

from gateway.database.database import Database
from gateway.run.executors import Executors, FileIdentity, SessionIdentity, StateInUse


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/jobs.sqlite"


def process(url: str, name: str, folder: Path, dead_after_s: float = 60.0) -> Executors:
    """An executor with connections of its own, as another process would have them."""
    database = Database(url)
    identity = SessionIdentity(database, name) if database.shared else FileIdentity(folder / f"{name}.lock")
    return Executors(database, identity, name, place="here", dead_after_s=dead_after_s)


def nobody(_: set[str]) -> set[str]:
    return set()


def test_an_id_belongs_to_one_process_and_is_free_as_soon_as_it_ends(database_url: str, tmp_path: Path) -> None:
    first, second = (process(database_url, "a", tmp_path) for _ in range(2))
    first.enter(0)
    with pytest.raises(StateInUse, match="executor 'a'"):
        second.enter(0.3)
    first.leave()
    second.enter(5)
    assert second.sign()


def test_the_jobs_of_a_dead_executor_are_carried_on_once_and_of_a_living_one_never(
    database_url: str, tmp_path: Path
) -> None:
    dead, living, other = (process(database_url, name, tmp_path) for name in ("dead", "living", "other"))
    for executor in (dead, living, other):
        executor.enter(0)
    held = {"dead", "living"}
    carried: list[str] = []

    def stranded(alive: set[str]) -> set[str]:
        return held - alive

    def carry_on(ids: set[str]) -> None:
        carried.extend(ids)
        held.difference_update(ids)

    assert living.take_over(stranded, carry_on) == set(), "all live"
    dead.leave()
    threads = [threading.Thread(target=executor.take_over, args=(stranded, carry_on)) for executor in (living, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert carried == ["dead"]


def test_an_executor_that_was_given_up_learns_it_and_counts_again(database_url: str, tmp_path: Path) -> None:
    slow, quick = process(database_url, "slow", tmp_path), process(database_url, "quick", tmp_path, dead_after_s=0.0)
    slow.enter(0)
    quick.enter(0)
    quick.take_over(nobody, lambda _: None)
    assert not slow.sign(), "it was silent for longer than the other one waits"
    assert slow.sign()
    assert not slow.alone()
