"""The jobs table and its law of transitions."""

import threading
import time
from pathlib import Path
from typing import Literal, get_args

import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from contracts.errors import Problem
from contracts.jobs import TERMINAL_JOB_STATES, GenerateOptions, JobState
from gateway.database.database import Database
from gateway.jobs.job import TRANSITIONS, UNFINISHED, IllegalTransition, JobNotFound, NewJob, QueueFull, new_job_id
from gateway.jobs.store import JobStore
from gateway.jobs.table import jobs as jobs_table
from gateway.submit.accept import resolve
from tests.unit.gateway.model_services import VIDEO_MODEL


def new_job(job_id: str | None = None, priority: int = 10) -> NewJob:
    options = GenerateOptions(prompt="a kite", metadata={"a": "b"})
    return NewJob(
        id=job_id or new_job_id(), request=options, parameters=resolve(options, [VIDEO_MODEL], [], None), picture=None,
        warnings=("w",), request_id="r", priority=priority,
    )


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/jobs.sqlite")


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def test_the_table_of_transitions_names_every_state_and_ends_in_the_terminal_ones() -> None:
    assert set(TRANSITIONS) == set(get_args(JobState))
    assert set(UNFINISHED) == set(TRANSITIONS) - TERMINAL_JOB_STATES
    ended = {target for state in TERMINAL_JOB_STATES for target in TRANSITIONS[state]}
    assert ended == {"expired"}, "what has ended never begins again"


def test_no_transition_leads_back_but_a_release_to_the_queue() -> None:
    rank = {"queued": 0, "running": 1, "completed": 2, "failed": 2, "canceled": 2, "expired": 3}
    back = {(state, to) for state, targets in TRANSITIONS.items() for to in targets if rank[to] <= rank[state]}
    assert back == {("running", "queued")}


class JobLife(RuleBasedStateMachine):
    """Whatever is tried in whatever order, a job is only ever where the table leads, and nothing else moves."""

    jobs = Bundle("jobs")
    folder: Path

    @initialize()
    def open(self) -> None:
        self.database = Database(f"sqlite:///{self.folder}/{new_job_id()}.sqlite")
        self.store = JobStore(self.database)
        self.model: dict[str, JobState] = {}

    @rule(target=jobs)
    def add(self) -> str:
        job = self.store.add(new_job(), max_queued=1000)
        self.model[job.id] = "queued"
        return job.id

    @rule(job=jobs, to=st.sampled_from(sorted(TRANSITIONS)))
    def move(self, job: str, to: JobState) -> None:
        if job not in self.model:
            with pytest.raises(JobNotFound):
                self.store.move(job, to)
        elif to in TRANSITIONS[self.model[job]]:
            moved = self.store.move(job, to)
            self.model[job] = to
            assert (moved.finished_at is not None) == moved.finished == ("total" in moved.timings)
        else:
            with pytest.raises(IllegalTransition):
                self.store.move(job, to)

    @rule(job=jobs, stage=st.sampled_from(["describing", "rendering", "saving"]))
    def note(self, job: str, stage: Literal["describing", "rendering", "saving"]) -> None:
        if self.model.get(job) == "running":
            assert self.store.note(job, stage=stage).stage == stage
        else:
            with pytest.raises((IllegalTransition, JobNotFound)):
                self.store.note(job, stage=stage)

    @rule(job=jobs)
    def remove(self, job: str) -> None:
        self.store.remove(job)
        self.model.pop(job, None)

    @invariant()
    def the_table_agrees(self) -> None:
        assert {job.id: job.state for job in self.store.page(1000)} == self.model

    def teardown(self) -> None:
        self.database.close()


def test_a_job_only_ever_goes_where_the_table_leads(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    JobLife.folder = tmp_path
    run_state_machine_as_test(JobLife, settings=hypothesis_settings(max_examples=15, stateful_step_count=20,
                                                                   deadline=None))


def test_what_was_stored_comes_back_equal_from_another_process(store: JobStore, tmp_path: Path) -> None:
    job = store.add(new_job(), 10)
    store.move(job.id, "running", stage="describing")
    store.note(job.id, actual_prompt="p", caption="c", timings={"describing": 0.5}, warning="careful")
    failed = store.move(job.id, "failed", error=Problem(status=500, code="oops", title="t", detail="d"))
    assert failed.warnings == ("w", "careful")
    assert failed.timings["describing"] == 0.5
    assert JobStore(Database(f"sqlite:///{tmp_path}/jobs.sqlite")).get(job.id) == failed


def test_pages_are_newest_first_and_a_removed_number_is_not_given_again(store: JobStore) -> None:
    jobs = [store.add(new_job(), 10) for _ in range(5)]
    first = store.page(2)
    assert [job.id for job in first] == [jobs[4].id, jobs[3].id]
    store.remove(jobs[4].id)
    late = store.add(new_job(), 10)
    assert late.sequence > jobs[4].sequence
    assert [job.id for job in store.page(2, beyond=first[-1].sequence)] == [jobs[2].id, jobs[1].id]


def test_many_at_once_never_exceed_the_queue(store: JobStore) -> None:
    outcomes: list[str] = []

    def add() -> None:
        try:
            store.add(new_job(), max_queued=5)
            outcomes.append("added")
        except QueueFull:
            outcomes.append("full")

    threads = [threading.Thread(target=add) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added"] * 5 + ["full"] * 7


def test_no_timing_is_negative_after_the_clock_was_set_back(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, canceled = store.add(new_job(), 10), store.add(new_job(), 10)
    monkeypatch.setattr(time, "time", lambda: job.created_at - 3600)
    store.move(job.id, "running", stage="describing")
    for ended in (store.move(job.id, "failed"), store.move(canceled.id, "canceled")):
        assert {"queued", "total"} <= ended.timings.keys()
        assert min(ended.timings.values()) >= 0


def test_a_job_is_stored_so_that_the_version_before_reads_it(store: JobStore, database: Database) -> None:
    """Which refuses fields that it does not know: those that were asked for are written, and no defaults."""
    job = store.add(new_job(), 10)
    row = sa.select(jobs_table.c.request).where(jobs_table.c.id == job.id)
    with database.engine.connect() as connection:
        assert connection.execute(row).scalar_one() == {"prompt": "a kite", "metadata": {"a": "b"}}
    assert store.get(job.id) == job


def test_what_a_later_version_wrote_of_a_job_besides_is_left_out(store: JobStore, database: Database) -> None:
    job = store.add(new_job(), 10)
    failed = store.move(job.id, "failed", error=Problem(status=500, code="c", title="t", detail="d"))
    with database.writing() as connection:
        for column in (jobs_table.c.request, jobs_table.c.parameters, jobs_table.c.error):
            value = connection.execute(sa.select(column).where(jobs_table.c.id == job.id)).scalar_one()
            connection.execute(jobs_table.update().values({column: value | {"of_2030": 1}}))
    assert store.get(job.id) == failed
    assert store.page(1) == [failed]
