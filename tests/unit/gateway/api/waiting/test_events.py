"""Following a job: server-sent events over a real socket."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from tests.unit.gateway.conftest import gateway_settings, open_socket_client
from tests.unit.gateway.model_services import Services

Event = tuple[str, str, dict[str, Any]]


async def followed(client: httpx.AsyncClient, path: str, **headers: str) -> list[Event]:
    """Every event of a stream until it ends: (id, event, job)."""
    return [event async for event in event_by_event(client, path, **headers)]


async def event_by_event(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Event]:
    async with aconnect_sse(client, "GET", path, headers=headers) as source:
        async for event in source.aiter_sse():
            yield event.id, event.event, json.loads(event.data)


async def test_events_tell_every_step_and_end_with_the_job(tmp_path: Path, services: Services) -> None:
    services.script.step_seen = threading.Semaphore(0)
    events: list[Event] = []
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        job = (await client.post("/generate", json={"prompt": "a kite", "steps": 6})).json()
        last_step = -1
        async for event in event_by_event(client, job["urls"]["events"]):
            events.append(event)
            progress = event[2]["progress"]
            if progress.get("stage") == "rendering" and progress["step"] > last_step:
                # A slow reader is told the newest step only, so the render waits here until each was seen.
                last_step = progress["step"]
                services.script.step_seen.release()
        states = [event for _, event, _ in events]
        assert states == sorted(states, key=["queued", "running", "completed"].index)
        assert states[-1] == "completed"
        steps = [job["progress"]["step"] for _, event, job in events if event == "running"]
        assert set(range(6)) <= set(steps)
        assert steps == sorted(steps)
        fractions = [job["progress"]["fraction"] for _, _, job in events]
        assert fractions == sorted(fractions)
        assert any(job["progress"].get("eta_s") for _, _, job in events)
        assert {job["progress"].get("stage") for _, _, job in events} >= {"rendering"}

        again = await followed(client, job["urls"]["events"])
        assert again == events[-1:], "who comes late is told the end"
        knows = await client.get(job["urls"]["events"], headers={"Last-Event-ID": events[-1][0]})
        assert (knows.status_code, knows.content) == (204, b""), "who knows the end may stop asking"
        missed = await followed(client, job["urls"]["events"], **{"Last-Event-ID": events[1][0]})
        assert missed == events[-1:]


async def test_a_silent_stream_sends_heartbeats_and_a_queued_job_its_place(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, heartbeat_s=0.05, concurrency_given=1)
    async with open_socket_client(settings) as client:
        jobs = [(await client.post("/generate", json={"prompt": f"kite {n}"})).json() for n in range(3)]
        lines: list[str] = []
        places: list[int] = []
        async with asyncio.timeout(60), client.stream("GET", jobs[2]["urls"]["events"]) as stream:
            async for line in stream.aiter_lines():
                lines.append(line)
                if line.startswith("data: "):
                    place = json.loads(line[6:])["progress"].get("queue_position")
                    places += [] if place is None else [place]
                if line == ": ping":
                    services.script.may_go_on.set()
        assert ": ping" in lines
        told = [line for line in lines if line.startswith("id: ")]
        # Not all different: an estimate may return to what it was, and with it the content that the id names.
        assert all(one != next_one for one, next_one in pairwise(told)), "only changes are told"
        assert places == sorted(places, reverse=True)
        assert {1, 0} <= set(places), "it moved up as the others left the queue"


@pytest.mark.slow
async def test_hundreds_of_watchers_all_see_the_end(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        job = (await client.post("/generate", json={"prompt": "a kite"})).json()
        async with httpx.AsyncClient(
            base_url=client.base_url, timeout=60, trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        ) as watchers:
            watching = [asyncio.create_task(followed(watchers, job["urls"]["events"])) for _ in range(200)]
            await asyncio.sleep(2)
            services.script.may_go_on.set()
            seen = await asyncio.gather(*watching)
        assert [events[-1][1] for events in seen] == ["completed"] * 200


async def test_a_follower_goes_on_after_a_restart_where_it_was(tmp_path: Path, services: Services) -> None:
    """An event's id names what it says, so another process knows as well what was told and what was not."""
    services.script.may_go_on.clear()
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        url = (await client.post("/generate", json={"prompt": "a kite"})).json()["urls"]["events"]
        told: list[str] = []
        async with asyncio.timeout(60), aconnect_sse(client, "GET", url) as source:
            async for event in source.aiter_sse():
                told.append(event.id)
                if json.loads(event.data)["progress"]["step"] == 2:
                    break
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        following = asyncio.create_task(followed(client, url, **{"Last-Event-ID": told[-1]}))
        await asyncio.sleep(0.3)
        services.script.may_go_on.set()
        later = await following
        assert later[-1][1] == "completed"
        assert told[-1] not in [event_id for event_id, _, _ in later[:1]], "what it knew is not told first"
        assert [event for _, event, _ in later[:-1]] == ["running"] * (len(later) - 1)
        assert len(services.script.begun) == 1
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        assert (await client.get(url, headers={"Last-Event-ID": later[-1][0]})).status_code == 204
        assert await followed(client, url, **{"Last-Event-ID": told[-1]}) == later[-1:]
