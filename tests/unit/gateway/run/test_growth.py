"""Laws of growth: what has ended leaves nothing in the engine, and records go when their time is over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.responses import Response

import gateway.run.recovery
import gateway.runtime
from contracts.jobs import JobState
from gateway.database.database import normal_url
from gateway.jobs.job import JobNotFound
from gateway.run.pipeline import Answer, Step
from gateway.settings import GatewaySettings
from tests.support.processes import free_port
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, open_gateway, until
from tests.unit.gateway.jobs.test_store import new_job
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.run.test_webhooks import IMPATIENT, Receiver, listening, settled, submit

_STAYS = {"dbos_migrations", "application_versions", "queues"}  # of the engine itself, however many jobs there were


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver(free_port())) as started:
        yield started


@pytest.fixture
def settings(
    tmp_path: Path, services: Services, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> GatewaySettings:
    monkeypatch.setattr(gateway.runtime, "Patience", lambda: IMPATIENT)
    monkeypatch.setattr(gateway.run.recovery, "_TIDY_EVERY_S", 0.05)
    monkeypatch.setattr(gateway.run.recovery, "_REVIEWED_AT_ONCE", 2)  # so that there is more than one page
    return gateway_settings(
        tmp_path, services, webhook_http=True, open_networks="127.0.0.0/8", keep_jobs_s=3600.0, **where
    )


def rows(url: str, *, engine: bool) -> dict[str, int]:
    """The tables that have rows: of the durable engine, or of the gateway."""
    database = sa.create_engine(normal_url(url))
    schema = "dbos" if engine and database.dialect.name == "postgresql" else None
    with database.connect() as connection:
        tables = [sa.table(name, schema=schema) for name in sa.inspect(database).get_table_names(schema)]
        counts = {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables}
    database.dispose()
    return {name: count for name, count in counts.items() if count and name not in _STAYS}


async def kept(settings: GatewaySettings, num_workflows: int) -> dict[str, int]:
    """The engine's rows once it remembers so many workflows."""
    found: dict[str, int] = {}
    for _ in range(200):
        found = rows(settings.engine_database_url, engine=True)
        # Counted one table after another: a workflow may begin meanwhile.
        if found.get("workflow_status", 0) == num_workflows and (num_workflows or not found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"never so few: {found}")


async def test_the_engine_forgets_what_has_ended_and_only_that(
    settings: GatewaySettings, services: Services, receiver: Receiver
) -> None:
    async with open_client(settings) as client:
        told, failed = await submit(client, receiver.url), await submit(client, receiver.url)
        for job_id in (told, failed):
            await settled(client, job_id)
        services.script.may_go_on.clear()
        at_work = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await until(client, at_work, lambda job: job["state"] == "running")
        await kept(settings, 1)
        services.script.may_go_on.set()
        canceled = await submit(client, receiver.url)
        await client.post(f"/v1/jobs/{canceled}/cancel")
        removed = await submit(client, receiver.url)
        await settled(client, removed)
        assert (await client.delete(f"/v1/jobs/{removed}")).status_code == 204
        assert (await until(client, at_work, lambda job: job["state"] != "running"))["state"] == "completed"
        await settled(client, canceled)
        assert await kept(settings, 0) == {}
        assert (await client.get(f"/v1/jobs/{told}")).json()["state"] == "completed"


async def test_a_record_goes_when_its_time_is_over_and_nobody_waits_for_its_webhook(
    settings: GatewaySettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.runtime, "Patience", lambda: IMPATIENT.__class__(first_wait_s=600.0))
    async with open_gateway(settings.model_copy(update={"keep_jobs_s": 0.5})) as (client, opened):
        told = await submit(client, receiver.url)
        await until(client, told, lambda job: "state" not in job)
        receiver.answers = [Response(status_code=500)]
        waits = await submit(client, receiver.url)
        expired = await until(client, waits, lambda job: job["state"] == "expired")
        assert expired["webhook"]["state"] == "sending"
        quiet = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        await until(client, quiet, lambda job: "state" not in job)
        assert (await client.get(f"/v1/jobs/{waits}")).status_code == 200, "its webhook is still to be delivered"
        assert left_behind(settings.data_dir) == []
        await opened.video.clear_left()
    left = rows(settings.jobs_database_url, engine=False)
    assert (left["jobs"], left["webhooks"]) == (1, 1)
    assert "queue_line" not in left


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_ten_thousand_jobs_leave_both_databases_as_large_as_a_thousand_did(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line, the engine, its parts and their records are the real ones; only what the parts do is left out."""
    monkeypatch.setattr(gateway.run.recovery, "_TIDY_EVERY_S", 0.5)
    settings = gateway_settings(tmp_path, services, keep_jobs_s=4.0, concurrency_given=8)

    def size() -> int:
        return sum(path.stat().st_size for path in settings.state_dir.glob("*.sqlite*"))

    async with open_gateway(settings) as (_, opened):
        async def run_job(job_id: str, _: int, step: Step) -> None:
            async def move(to: JobState) -> Answer:
                return {"ended": False, "value": (await opened.ledger.move(job_id, to)).state}

            moves: dict[str, JobState] = {"describe": "running", "keep": "completed"}
            for part, state in moves.items():
                await step(part, partial(move, state))

        monkeypatch.setattr(opened.engine, "_run_job", run_job)
        sizes = []
        for _ in range(20):
            jobs = [await opened.ledger.add(new_job(), 1000) for _ in range(500)]
            for job in jobs:
                with contextlib.suppress(JobNotFound):  # gone already: its time was over
                    assert (await opened.ledger.ended(job.id, 60)).finished
            sizes.append(size())
            print(sizes[-1], flush=True)
    assert max(sizes[2:]) < 1.2 * sizes[1], sizes
