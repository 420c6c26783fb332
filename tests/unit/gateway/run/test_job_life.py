"""The life of jobs under whatever order of calls and restarts: a state machine that knows what must be true."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from contracts.jobs import TERMINAL_JOB_STATES
from gateway.jobs.job import TRANSITIONS
from tests.unit.gateway.conftest import gateway_settings, left_behind
from tests.unit.gateway.live_gateway import LiveGateway
from tests.unit.gateway.model_services import Script, Services

ENDED = TERMINAL_JOB_STATES


def reachable(state: str) -> set[str]:
    """The state and every one that may follow it."""
    found, ahead = {state}, [state]
    while ahead:
        for following in TRANSITIONS[ahead.pop()]:  # pyright: ignore[reportArgumentType] - the states are its keys
            if following not in found:
                found.add(following)
                ahead.append(following)
    return found


class JobLife(RuleBasedStateMachine):
    """Jobs as their owner may know them: the last state seen of each, and what was removed."""

    jobs = Bundle("jobs")
    services: Services

    def __init__(self) -> None:
        super().__init__()
        vars(self.services.script).update(vars(Script()))
        self.script = self.services.script
        self.folder = Path(tempfile.mkdtemp(prefix="stillmotion-"))
        self.gateway = LiveGateway(gateway_settings(self.folder, self.services, concurrency_given=2))
        self.seen: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.removed: set[str] = set()

    @initialize()
    def renders_stand_still(self) -> None:
        self.script.may_go_on.clear()

    @rule(target=jobs, key=st.sampled_from([None, "a", "b"]))
    def submit(self, key: str | None) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.gateway.client.post("/generate", json={"prompt": "a kite"}, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        job_id: str = answer.json()["id"]
        known = self.keys.get(key or "")
        assert (job_id == known) == (answer.headers.get("Idempotent-Replayed") == "true")
        if key is not None and known is not None:
            assert job_id == known, "the same key and body, the same job"
        if key is not None:
            self.keys[key] = job_id
        self.look(answer.json())
        return job_id

    @rule(job_id=jobs)
    def poll(self, job_id: str) -> None:
        answer = self.gateway.client.get(f"/v1/jobs/{job_id}")
        if job_id in self.removed:
            assert answer.status_code == 404
        else:
            self.look(answer.json())
        video = self.gateway.client.get(f"/v1/videos/{job_id}")
        assert video.status_code == answer.status_code

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        answer = self.gateway.client.post(f"/v1/jobs/{job_id}/cancel")
        if job_id in self.removed:
            assert answer.status_code == 404
        elif answer.status_code == 200:
            self.look(answer.json())
            assert answer.json()["state"] == "canceled"
        else:
            assert answer.status_code == 409
            assert self.state(job_id) in ENDED - {"canceled"}

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> None:
        answer = self.gateway.client.delete(f"/v1/jobs/{job_id}")
        if job_id in self.removed:
            assert answer.status_code == 404
        elif answer.status_code == 409:
            assert self.seen[job_id] not in ENDED, "an ended job can be removed"
            assert self.gateway.client.delete(f"/v1/videos/{job_id}").status_code == 200, "here it is canceled first"
            self.forget(job_id)
        else:
            assert answer.status_code == 204
            self.forget(job_id)

    @rule()
    def let_renders_finish(self) -> None:
        self.script.may_go_on.set()
        time.sleep(0.1)
        self.script.may_go_on.clear()

    @rule()
    def restart(self) -> None:
        self.gateway.stop()
        self.gateway.start()

    @invariant()
    def the_list_is_what_is_there(self) -> None:
        listed = self.gateway.client.get("/v1/jobs", params={"limit": 100}).json()["data"]
        for job in listed:
            self.look(job)
        assert {job["id"] for job in listed} == set(self.seen)
        assert [job["created_at"] for job in listed] == sorted((job["created_at"] for job in listed), reverse=True)

    def look(self, job: dict[str, Any]) -> None:
        assert job["id"] not in self.removed
        assert job["state"] in reachable(self.seen.get(job["id"], "queued")), "no way back"
        assert (job["video"] is not None) == (job["state"] == "completed")
        assert (job["finished_at"] is not None) == (job["state"] in ENDED)
        self.seen[job["id"]] = job["state"]

    def state(self, job_id: str) -> str:
        self.look(self.gateway.client.get(f"/v1/jobs/{job_id}").json())
        return self.seen[job_id]

    def forget(self, job_id: str) -> None:
        del self.seen[job_id]
        self.removed.add(job_id)
        self.keys = {key: owner for key, owner in self.keys.items() if owner != job_id}

    def teardown(self) -> None:
        """Everything ends, nothing was rendered twice to its end, and no file is left of what was removed."""
        self.script.may_go_on.set()
        try:
            deadline = time.monotonic() + 20
            while not all(self.state(job_id) in ENDED for job_id in list(self.seen)):
                assert time.monotonic() < deadline, self.seen
                time.sleep(0.02)
            assert set(self.seen.values()) <= {"completed", "canceled"}
            assert len(self.script.completed) == len(set(self.script.completed))
            while {name.split("/")[0] for name in left_behind(self.folder)} - set(self.seen):
                assert time.monotonic() < deadline, left_behind(self.folder)
                time.sleep(0.05)
        finally:
            self.gateway.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.slow
def test_the_life_of_jobs_under_any_order_of_calls(services: Services) -> None:
    JobLife.services = services
    run_state_machine_as_test(JobLife, settings=settings(
        max_examples=3, stateful_step_count=12, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate],  # each run starts gateways: shrinking would take minutes
        suppress_health_check=[HealthCheck.too_slow],
    ))
