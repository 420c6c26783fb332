"""The command line's client against the real gateway, over a real socket."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.jobs import GenerateOptions
from gateway.cli.client.jobs import JobClient
from tests.unit.gateway.conftest import gateway_settings, open_socket_client
from tests.unit.gateway.model_services import Services, running_services


@pytest.fixture
def services() -> Iterator[Services]:
    with running_services() as running:
        yield running
        running.script.may_go_on.set()  # a test that failed leaves no render behind that its end would wait for


async def test_a_render_that_is_silent_for_several_heartbeats_is_followed_to_its_end(
    tmp_path: Path, services: Services
) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, heartbeat_s=0.05)
    async with open_socket_client(settings) as http:
        client = JobClient(http, str(http.base_url))
        job = await client.submit(GenerateOptions(prompt="a kite"), None)

        async def let_it_go_on() -> None:
            while (await client.look(job)).progress.step < 2:  # noqa: ASYNC110 - the step happens in another thread
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)  # six heartbeats without a change
            services.script.may_go_on.set()

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(let_it_go_on())
            seen = [current async for current in client.follow(job)]
        assert seen[-1].state == "completed"
