"""The line of waiting jobs: who is next, and when everybody is done."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gateway.jobs.progress
from contracts.jobs import JobProgress
from gateway.database.database import Database
from gateway.jobs.job import ClaimLost, IllegalTransition, JobRecord
from gateway.jobs.progress import Eta, LiveProgress, Waiting
from gateway.jobs.queue import ROUNDS_PER_PRIORITY, Claim, Claimable, JobQueue
from gateway.jobs.store import JobStore
from tests.unit.gateway.jobs.test_store import new_job

RENDER = {"render.text": 0.5, "render.denoise": 8.0, "render.decode": 1.0, "render.write": 1.5, "rendering": 99.0}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/jobs.sqlite")


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database)


def add(store: JobStore, owner: str, count: int, priority: int = 10) -> list[str]:
    jobs = [replace(new_job(f"{owner}{index}", priority), owner=owner) for index in range(count)]
    return [store.add(job, 10_000).id for job in jobs]


def taken(queue: JobQueue, executor_id: str, most: int) -> list[str]:
    """The ids of what an executor takes."""
    return [claim.job_id for claim in queue.take(executor_id, most)]


def next_up(store: JobStore, queue: JobQueue) -> str:
    """The job that is begun next."""
    first = queue.look()
    [job_id] = taken(queue, "an executor", 1)
    assert first.place(job_id, store.get(job_id).turn) == 0
    store.move(job_id, "running")
    return job_id


def test_owners_take_turns_however_many_jobs_each_of_them_has(store: JobStore, queue: JobQueue) -> None:
    add(store, "a", 6)
    add(store, "b", 2)
    add(store, "c", 1)
    assert [next_up(store, queue) for _ in range(6)] == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_a_newcomer_waits_for_one_round_and_not_for_the_whole_line(store: JobStore, queue: JobQueue) -> None:
    add(store, "a", 50)
    for _ in range(10):
        next_up(store, queue)
    add(store, "b", 2)
    assert [next_up(store, queue) for _ in range(4)] == ["a10", "b0", "a11", "b1"]


def test_a_better_priority_goes_first(store: JobStore, queue: JobQueue) -> None:
    add(store, "a", 3)
    add(store, "b", 2, priority=5)
    assert [next_up(store, queue) for _ in range(3)] == ["b0", "b1", "a0"]


def test_nobody_starves_under_an_endless_stream_of_better_jobs(store: JobStore, queue: JobQueue) -> None:
    add(store, "patient", 1, priority=11)
    begun: list[str] = []
    while "patient0" not in begun:
        store.add(replace(new_job(f"eager{len(begun)}", 10), owner="eager"), 10_000)
        begun.append(next_up(store, queue))
        assert len(begun) <= ROUNDS_PER_PRIORITY + 2
    assert len(begun) > ROUNDS_PER_PRIORITY // 2  # and it did stand back


def test_positions_name_every_place_in_the_line_once(store: JobStore, queue: JobQueue) -> None:
    ids = add(store, "a", 5) + add(store, "b", 3, priority=7) + add(store, "c", 2)
    now = queue.look()
    assert sorted(now.place(job_id, store.get(job_id).turn) for job_id in ids) == list(range(10))


def test_one_that_came_after_the_look_stands_behind_all_of_its_turn(store: JobStore, queue: JobQueue) -> None:
    add(store, "a", 3)
    before = queue.look()
    for owner, place in (("a", 3), ("b", 1)):
        job = store.add(replace(new_job(f"late {owner}"), owner=owner), 10_000)
        assert before.place(job.id, job.turn) == place


def test_what_one_executor_has_taken_no_other_takes_until_it_is_handed_back(
    tmp_path: Path, where: dict[str, Any]
) -> None:
    shared = Database(where.get("database_url", f"sqlite:///{tmp_path}/jobs.sqlite"))
    store, queue = JobStore(shared), JobQueue(shared)
    add(store, "a", 4)
    assert taken(queue, "one", 2) == ["a0", "a1"]
    assert (taken(queue, "other", 9), taken(queue, "one", 9)) == (["a2", "a3"], [])
    queue.hand_back("a1")
    assert taken(queue, "other", 9) == ["a1"]
    store.move("a0", "running")
    queue.hand_back("a0")
    assert taken(queue, "other", 9) == [], "it was begun"
    store.move("a1", "canceled")
    assert sorted(claim.job_id for claim in queue.in_hand()) == ["a0", "a2", "a3"]
    add(store, "b", 40)
    with ThreadPoolExecutor(4) as crowd:
        shares = list(crowd.map(lambda number: taken(queue, f"executor {number}", 15), range(4)))
    assert sorted(job_id for each in shares for job_id in each) == sorted(f"b{number}" for number in range(40))


def test_a_released_job_keeps_its_place_after_a_pause_in_which_others_go_before(
    tmp_path: Path, where: dict[str, Any]
) -> None:
    shared = Database(where.get("database_url", f"sqlite:///{tmp_path}/jobs.sqlite"))
    store, queue = JobStore(shared), JobQueue(shared)
    add(store, "a", 3)
    assert next_up(store, queue) == "a0"
    released = store.release("a0", 0, "vl_service", "the weights are loading", pause_s=0.2)
    assert (released.state, released.stage, released.claim, released.waiting_for) == ("queued", None, 1, "vl_service")
    assert queue.look().places["a0"] == 0, "it kept its place"
    assert taken(queue, "one", 1) == ["a1"]
    time.sleep(0.25)
    assert queue.take("one", 9) == [Claim(job_id="a0", number=1), Claim(job_id="a2", number=0)]
    began = store.move("a0", "running", claim=1)
    assert began.started_at == released.started_at, "it was begun when it was begun first"


def test_a_claim_that_is_over_changes_nothing_any_more(store: JobStore, queue: JobQueue) -> None:
    add(store, "a", 1)
    next_up(store, queue)
    store.release("a0", 0, "storage", "no room", pause_s=0.0)
    before = store.get("a0")
    for late in (
        partial(store.move, "a0", "running", claim=0), partial(store.move, "a0", "failed", claim=0),
        partial(store.note, "a0", warning="late", claim=0),
        partial(store.release, "a0", 0, "storage", "no room", pause_s=0.0),
    ):
        with pytest.raises(ClaimLost):
            late()
    assert store.get("a0") == before
    store.move("a0", "canceled")
    with pytest.raises(IllegalTransition):
        store.release("a0", 1, "storage", "no room", pause_s=0.0)


@pytest.mark.parametrize(("claimable", "expected"), [
    (Claimable(), ["words0", "wish0", "other0"]), (Claimable(renders=False), []),
    (Claimable(describes=False), ["words0", "other0"]),
    (Claimable(absent_models=frozenset({"other"})), ["words0", "wish0"]),
    (Claimable(describes=False, absent_models=frozenset({"other"})), ["words0"]),
])
def test_only_jobs_are_taken_that_have_all_they_need(
    claimable: Claimable, expected: list[str], store: JobStore, queue: JobQueue
) -> None:
    add(store, "words", 1)
    wish = new_job("wish0")
    store.add(replace(wish, owner="wish", request=wish.request.model_copy(update={"enhance": "always"})), 100)
    other = new_job("other0")
    store.add(replace(other, parameters=other.parameters.model_copy(update={"model": "other"})), 100)
    assert [claim.job_id for claim in queue.take("one", 9, claimable)] == expected


def test_a_job_that_was_described_needs_the_describing_service_no_more(store: JobStore, queue: JobQueue) -> None:
    wish = new_job("wish")
    store.add(replace(wish, request=wish.request.model_copy(update={"enhance": "always"})), 100)
    assert queue.take("one", 1, Claimable(describes=False)) == []
    assert next_up(store, queue) == "wish"
    store.note("wish", stage="rendering", actual_prompt="a kite, slowly", claim=0)
    store.release("wish", 0, "video_service", "it restarts", pause_s=0.0)
    assert queue.take("one", 1, Claimable(describes=False)) == [Claim(job_id="wish", number=1)]


def test_the_first_jobs_of_all_may_begin_at_once(tmp_path: Path, where: dict[str, Any]) -> None:
    """Each of them finds no clock; the tenth round has as many chances as the first."""
    shared = Database(where.get("database_url", f"sqlite:///{tmp_path}/jobs.sqlite"))
    store = JobStore(shared)
    with ThreadPoolExecutor(4) as crowd:
        for attempt in range(10):
            with shared.writing() as connection:
                connection.exec_driver_sql("DELETE FROM queue_clock")
            begun = crowd.map(partial(store.move, to="running"), add(store, f"owner{attempt}-", 4))
            assert [job.state for job in begun] == ["running"] * 4


def complete(store: JobStore, job_id: str, timings: dict[str, float] = RENDER) -> JobRecord:
    store.move(job_id, "running")
    return store.move(job_id, "completed", timings=timings)


def test_time_left_is_not_claimed_before_a_render_was_measured(database: Database, store: JobStore) -> None:
    eta = Eta(database, LiveProgress(), servers=lambda: 1)
    waiting = eta.of(store.add(new_job("first"), 10))
    assert (waiting.position, waiting.eta_s) == (0, None)


def test_time_left_counts_the_renders_ahead_and_the_one_at_work_over_the_services(
    database: Database, store: JobStore
) -> None:
    live = LiveProgress()
    store.add(new_job("past"), 10)
    complete(store, "past")  # took 0.5 + 8 + max(1, 1.5) = 10 s, whatever it waited at the service
    eta = Eta(database, live, servers=lambda: 1)
    eta.learn_from_the_past()
    for job_id in ("running", "second", "third"):
        store.add(new_job(job_id), 10)
    store.move("running", "running")
    live.report("running", JobProgress(stage="rendering", eta_s=4.0))
    eta.look()
    second, third = eta.of(store.get("second")), eta.of(store.get("third"))
    assert (second.position, second.eta_s) == (0, 14.0)
    assert (third.position, third.eta_s) == (1, 24.0)
    two = Eta(database, live, servers=lambda: 2)
    two.learn_from_the_past()
    two.look()
    assert two.of(store.get("third")).eta_s == 17.0


def test_a_line_longer_than_the_sample_is_taken_to_go_on_like_its_beginning(
    database: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.jobs.progress, "_SAMPLE", 4)
    store.add(new_job("past"), 10)
    eta = Eta(database, LiveProgress(), servers=lambda: 1)
    eta.ended(complete(store, "past"))
    add(store, "a", 8)
    eta.look()
    assert eta.of(store.get("a7")) == Waiting(position=7, eta_s=80.0)
    assert eta.of(store.get("a2")) == Waiting(position=2, eta_s=30.0)


def test_a_size_never_rendered_is_estimated_from_others_of_its_model(database: Database, store: JobStore) -> None:
    store.add(new_job("past"), 10)
    done = complete(store, "past")
    eta = Eta(database, LiveProgress(), servers=lambda: 1)
    eta.ended(done)
    job = new_job("larger")
    double = job.parameters.model_copy(update={"steps": (job.parameters.steps or 1) * 2})
    waiting = eta.of(store.add(replace(job, parameters=double), 10))
    assert waiting.eta_s == 18.0  # twice the 8 s of denoising, the other 2 s as they were
