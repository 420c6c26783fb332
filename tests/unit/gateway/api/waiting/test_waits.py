"""One caller's open streams and waiting requests are bounded; who has too many keeps nobody else out."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.auth.callers import TooManyWaits, Waits, network_of
from gateway.auth.keys import KeyLimits, KeyStore
from gateway.database.database import Database
from tests.unit.gateway.conftest import gateway_settings, open_socket_client
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.timeout(60)

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "events": ("GET", "/v1/jobs/{id}/events", {}), "wait": ("GET", "/v1/jobs/{id}?wait=60", {}),
    "prefer": ("POST", "/generate", {"json": {"prompt": "a"}, "headers": {"Prefer": "wait=60"}}),
    "bytes": ("POST", "/generate", {"json": {"prompt": "a"}, "headers": {"Accept": "video/mp4"}}),
}


@asynccontextmanager
async def from_address(client: httpx.AsyncClient, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Another client of the same server."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, base_url=client.base_url, timeout=30) as other:
        yield other


async def refused(client: httpx.AsyncClient, kind: str, job_id: str) -> httpx.Response | None:
    """The refusal of a request of this kind; `None` where it waits, which is ended then."""
    method, path, more = KINDS[kind]
    try:
        async with asyncio.timeout(1.0), client.stream(method, path.replace("{id}", job_id), **more) as answer:
            if answer.is_success:
                return None
            await answer.aread()
            return answer
    except TimeoutError:
        return None


@pytest.fixture(autouse=True)
def held_renders(services: Services) -> Iterator[None]:
    services.script.may_go_on.clear()
    yield
    services.script.may_go_on.set()


async def test_who_has_too_many_open_is_told_and_keeps_nobody_out(tmp_path: Path, services: Services) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            open_socket_client(gateway_settings(tmp_path, services, max_waits=3)))
        job = (await client.post("/generate", json={"prompt": "a kite"})).json()
        jobs = len((await client.get("/v1/jobs")).json()["data"])
        streams = [await stack.enter_async_context(client.stream("GET", job["urls"]["events"])) for _ in range(2)]
        assert [stream.status_code for stream in streams] == [200, 200]
        waiting = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", params={"wait": 60}))
        await asyncio.sleep(0.3)
        for kind in KINDS:
            told = await refused(client, kind, job["id"])
            assert told is not None, kind
            assert (told.status_code, told.json()["code"]) == (429, "too_many_waits"), kind
            assert "Retry-After" in told.headers
        assert len((await client.get("/v1/jobs")).json()["data"]) == jobs, "what was refused made no job"
        assert (await client.get(f"/v1/jobs/{job['id']}")).status_code == 200, "looking is free"
        other = await stack.enter_async_context(from_address(client, "127.0.0.2"))
        assert [await refused(other, kind, job["id"]) for kind in KINDS] == [None] * 4
        waiting.cancel()
        await streams[0].aclose()
        async with asyncio.timeout(10):
            while await refused(client, "events", job["id"]) is not None:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)


async def test_keys_are_callers_of_their_own_from_one_address(tmp_path: Path, services: Services) -> None:
    settings = gateway_settings(tmp_path, services, keys="required", max_waits=1)
    async with open_socket_client(settings) as client:
        keys = KeyStore(Database(settings.jobs_database_url))
        for name in ("one", "two"):
            client.headers["Authorization"] = f"Bearer {keys.create(name, KeyLimits())[1]}"
            job = (await client.post("/generate", json={"prompt": "a kite"})).json()
            async with client.stream("GET", job["urls"]["events"]) as stream:
                assert stream.status_code == 200
                assert await refused(client, "wait", job["id"]) is not None


def test_all_callers_together_leave_room() -> None:
    waits = Waits(per_caller=2, in_all=3)
    with waits.one("a"), waits.one("a"), waits.one("b"):
        for caller, of_all in (("a", False), ("b", True), ("c", True)):
            with pytest.raises(TooManyWaits) as told, waits.one(caller):
                pass
            assert told.value.problem.status == (503 if of_all else 429)
    with waits.one("c"):
        pass


@pytest.mark.parametrize(("host", "network"), [
    ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"), ("testclient", "testclient"), (None, ""),
])
def test_an_ipv6_caller_is_its_network(host: str | None, network: str) -> None:
    assert network_of(host) == network
