"""Laws of keys: what is stored opens nothing, another key's things are not there, a refusal leaves nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from typer.testing import CliRunner, Result

from gateway.app import create_app
from gateway.auth.keys import KeyLimits, KeyNameRefused, KeyNotFound, KeyStore, RateNotReadable
from gateway.auth.signing import open_signer
from gateway.cli.commands import app as commands
from gateway.database.database import Database
from gateway.settings import GatewaySettings
from gateway.start import check_start
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services

OPEN_PATHS = {"/livez", "/readyz", "/", "/docs", "/docs/{name}", "/openapi.json", "/v1/links/{token}"}


@pytest.fixture
def settings(tmp_path: Path, services: Services) -> GatewaySettings:
    return gateway_settings(tmp_path, services, keys="required")


@pytest.fixture
def keys(settings: GatewaySettings) -> KeyStore:
    """The keys as another process, such as the command line, sees them."""
    return KeyStore(Database(settings.jobs_database_url))


@pytest.fixture
async def guarded(settings: GatewaySettings, keys: KeyStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client, without a key, of a gateway that wants one."""
    async with open_client(settings) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def key(keys: KeyStore, name: str, **limits: Any) -> dict[str, str]:
    """The headers of a new key."""
    return bearer(keys.create(name, KeyLimits(**limits))[1])


async def post(client: httpx.AsyncClient, headers: dict[str, str], **options: Any) -> httpx.Response:
    return await client.post("/generate", headers=headers, json={"prompt": "a kite", **options})


def test_what_is_stored_of_a_key_does_not_contain_it(keys: KeyStore, settings: GatewaySettings) -> None:
    record, secret = keys.create("alice", KeyLimits(rate="30/minute"))
    assert secret.startswith("sm_")
    assert len(secret) >= 40
    assert keys.find(secret) == record
    stored = str(sqlite3.connect(settings.state_dir / "jobs.sqlite").execute("SELECT * FROM api_keys").fetchall())
    assert secret not in stored
    assert secret[3:] not in stored
    assert record.id in stored


def test_a_name_goes_to_one_usable_key_and_is_free_again_once_it_is_revoked(
    tmp_path: Path, services: Services, where: dict[str, Any]
) -> None:
    keys = KeyStore(Database(gateway_settings(tmp_path, services, **where).jobs_database_url))
    first, secret = keys.create("alice", KeyLimits())
    with pytest.raises(KeyNameRefused):
        keys.create("alice", KeyLimits())
    keys.revoke("alice")
    assert keys.find(secret) is None
    second, _ = keys.create("alice", KeyLimits())
    assert [(kept.id, kept.revoked_at is None) for kept in keys.all()] == [(first.id, False), (second.id, True)]
    with pytest.raises(KeyNotFound):
        keys.revoke(first.id)


@pytest.mark.parametrize("rate", ["fast", "30", "-1/minute", "30/fortnight", ""])
def test_a_rate_that_cannot_be_read_makes_no_key(keys: KeyStore, rate: str) -> None:
    with pytest.raises(RateNotReadable):
        keys.create("alice", KeyLimits(rate=rate))
    assert keys.all() == []


@pytest.mark.parametrize(
    ("host", "keys", "required"),
    [
        ("127.0.0.1", "auto", False), ("::1", "auto", False), ("localhost", "auto", False), ("0.0.0.0", "auto", True),
        ("::", "auto", True), ("192.168.1.5", "auto", True), ("0.0.0.0", "off", False), ("127.0.0.1", "required", True),
    ],
)
def test_keys_are_needed_beyond_loopback_unless_it_is_said_otherwise(host: str, keys: str, required: bool) -> None:
    assert GatewaySettings.model_validate({"host": host, "keys": keys}).keys_required is required


async def test_without_a_known_key_nothing_is_done(
    guarded: httpx.AsyncClient, keys: KeyStore, settings: GatewaySettings
) -> None:
    revoked = key(keys, "gone")
    keys.revoke("gone")
    basic = {"Authorization": "Basic c206c20="}
    for headers in ({}, bearer("sm_guess"), basic, revoked):
        answer = await post(guarded, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "key_required")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert left_behind(settings.data_dir) == []
    assert (await guarded.get("/v1/jobs", headers=key(keys, "alice"))).json()["data"] == []


def api_routes(app: FastAPI) -> list[tuple[str, str]]:
    routes: list[Any] = [
        inner for route in app.routes
        for inner in (getattr(getattr(route, "original_router", None), "routes", None) or [route])
    ]
    return [
        (method, route.path)
        for route in routes if isinstance(route, APIRoute) for method in sorted(route.methods or ())
    ]


async def test_every_route_but_health_and_docs_refuses_a_caller_without_a_key(
    guarded: httpx.AsyncClient, settings: GatewaySettings
) -> None:
    routes = [(method, path) for method, path in api_routes(create_app(settings)) if path not in OPEN_PATHS]
    assert ("POST", "/generate") in routes
    assert len(routes) >= 9
    for method, path in routes:
        answer = await guarded.request(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code == 401, (method, path, answer.text)
    for path in OPEN_PATHS - {"/docs/{name}", "/v1/links/{token}"}:
        assert (await guarded.get(path)).status_code in (200, 307, 503), path


async def test_another_keys_job_is_not_there_on_any_route(guarded: httpx.AsyncClient, keys: KeyStore) -> None:
    alice, mallory = key(keys, "alice"), key(keys, "mallory")
    job_id = (await post(guarded, alice)).json()["id"]
    guarded.headers.update(alice)
    await until(guarded, job_id, lambda job: job["state"] == "completed")
    here = f"/v1/jobs/{job_id}"
    for method, path in [
        ("GET", here), ("POST", f"{here}/cancel"), ("GET", f"{here}/events"), ("GET", f"{here}/content"),
        ("HEAD", f"{here}/content"), ("DELETE", here),
    ]:
        answer = await guarded.request(method, path, headers=mallory)
        assert answer.status_code == 404, (method, path)
        unknown = await guarded.request(method, path.replace(job_id, "job_0"), headers=mallory)
        assert answer.text.replace(job_id, "job_0") == unknown.text, "nothing tells it from a job that never was"
    assert (await guarded.get("/v1/jobs", headers=mallory)).json()["data"] == []
    assert [job["id"] for job in (await guarded.get("/v1/jobs")).json()["data"]] == [job_id]
    assert (await guarded.get(f"{here}/content")).status_code == 200


async def test_a_rate_refuses_work_beyond_it_and_nothing_else(guarded: httpx.AsyncClient, keys: KeyStore) -> None:
    alice, bob = key(keys, "alice", rate="2/hour"), key(keys, "bob", rate="2/hour")
    assert [(await post(guarded, alice)).status_code for _ in range(2)] == [202, 202]
    refused = await post(guarded, alice)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 3500 <= int(refused.headers["Retry-After"]) <= 3600
    jobs = (await guarded.get("/v1/jobs", headers=alice)).json()["data"]
    assert len(jobs) == 2, "the refused one left nothing"
    assert (await guarded.post(f"/v1/jobs/{jobs[0]['id']}/cancel", headers=alice)).status_code in (200, 409)
    assert (await post(guarded, bob)).status_code == 202, "each key has a count of its own"


async def test_a_key_has_only_so_many_unfinished_jobs(
    guarded: httpx.AsyncClient, keys: KeyStore, services: Services
) -> None:
    services.script.may_go_on.clear()
    alice, bob = key(keys, "alice", max_jobs=2), key(keys, "bob")
    try:
        answers = await asyncio.gather(*(post(guarded, alice) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "too_many_jobs"
        assert int(refused.headers["Retry-After"]) > 0
        assert (await post(guarded, bob)).status_code == 202
        first = (await guarded.get("/v1/jobs", headers=alice)).json()["data"][0]["id"]
        await guarded.post(f"/v1/jobs/{first}/cancel", headers=alice)
        assert (await post(guarded, alice)).status_code == 202, "a job that ended makes room"
    finally:
        services.script.may_go_on.set()


async def test_a_keys_jobs_never_run_before_its_best_priority(guarded: httpx.AsyncClient, keys: KeyStore) -> None:
    plain, urgent, late = key(keys, "plain"), key(keys, "urgent", best_priority=3), key(keys, "late", best_priority=50)
    for headers, asked, granted in [
        (plain, None, 10), (plain, 1, 10), (plain, 20, 20), (urgent, 1, 3), (urgent, 3, 3), (late, None, 50),
    ]:
        job = (await post(guarded, headers, priority=asked)).json()
        assert job["priority"] == granted
        assert bool(job["warnings"]) is (asked is not None and asked != granted)
    assert (await post(guarded, plain, priority=0)).status_code == 422


async def test_a_key_is_known_from_the_moment_it_is_made_and_its_use_is_noted(
    guarded: httpx.AsyncClient, keys: KeyStore
) -> None:
    alice = key(keys, "alice")
    assert keys.all()[0].last_used_at is None
    assert (await guarded.get("/v1/jobs", headers=alice)).status_code == 200
    used = keys.all()[0].last_used_at
    assert used is not None
    await guarded.get("/v1/jobs", headers=alice)
    assert keys.all()[0].last_used_at == used, "to the minute, for a write costs more than a look"
    keys.revoke("alice")
    assert (await guarded.get("/v1/jobs", headers=alice)).status_code == 401


async def test_where_no_key_is_needed_none_is_looked_at(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        answer = await client.get("/v1/jobs", headers=bearer("whatever a client library insists on"))
    assert answer.status_code == 200


def test_the_description_offers_a_key_where_one_is_needed_and_only_there(settings: GatewaySettings) -> None:
    described = create_app(settings).openapi()
    assert described["components"]["securitySchemes"]["key"] == {
        "type": "http", "scheme": "bearer", "description": "A key of this server, such as `sm_…`.",
    }
    operation = described["paths"]["/generate"]["post"]
    assert operation["security"] == [{"key": []}]
    assert {"401", "429"} <= set(operation["responses"])
    assert "security" not in described["paths"]["/livez"]["get"]
    without = create_app(settings.model_copy(update={"keys": "off"})).openapi()
    assert "securitySchemes" not in without["components"]
    assert "security" not in without["paths"]["/generate"]["post"]


def test_a_gateway_for_everybody_does_not_start_by_oversight(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as refused:
        check_start(GatewaySettings.model_validate({"data_dir": tmp_path, "host": "0.0.0.0"}))
    assert refused.value.code == 78
    assert "stillmotion keys create" in caplog.text
    assert "GATEWAY_KEYS=off" in caplog.text


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(commands, ["keys", *arguments], env={"STILLMOTION_DATA": str(tmp_path)})

    made = run("create", "alice", "--rate", "30/minute", "--max-jobs", "4", "--new")
    assert str(tmp_path) in made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("sm_"), made.output
    listed = run("list").stdout
    assert "alice" in listed
    assert "30/minute" in listed
    assert "never" in listed
    assert secret not in listed
    again = run("create", "alice")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "in use" in again.stderr
    signed = run("webhook-secret", "alice").stdout.strip()
    assert signed == open_signer(None, tmp_path / "gateway").webhook_secret(listed.split("alice")[1].split()[0])
    assert run("revoke", "alice").exit_code == 0
    assert "revoked" in run("list").stdout


@pytest.mark.parametrize("arguments", [("create", "alice"), ("list",), ("revoke", "alice"), ("webhook-secret",)])
def test_the_command_makes_no_key_where_no_server_would_see_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    elsewhere = tmp_path / "elsewhere"
    told = CliRunner().invoke(commands, ["keys", *arguments], env={"STILLMOTION_DATA": str(elsewhere)})
    assert (told.exit_code, told.stdout) == (1, "")
    assert str(elsewhere) in told.stderr
    assert "STILLMOTION_DATA" in told.stderr
    assert not elsewhere.exists()
