"""The app in this process with a worker in another, and what tests wait for."""

import asyncio
import base64
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.models import Health
from vl_service.http.app import create_app
from vl_service.model import WORKER_COMMAND
from vl_service.settings import Settings

Client = httpx.AsyncClient
SMALL = io.BytesIO()
Image.new("RGB", (64, 48), (200, 40, 40)).save(SMALL, "PNG")
RED = base64.b64encode(SMALL.getvalue()).decode()
CAPTION = {"image": RED, "tasks": [{"kind": "caption"}]}
SCRIPTED = (sys.executable, "-m", "tests.unit.vl_service.http.scripted_worker")


def asking(word: str) -> dict[str, Any]:
    """What makes the scripted worker do something."""
    return {"image": RED, "tasks": [{"kind": "question", "question": word}]}


@asynccontextmanager
async def serving(
    *, wait: bool = True, command: tuple[str, ...] = WORKER_COMMAND, **settings: Any
) -> AsyncIterator[Client]:
    """The app in this process, its worker in another."""
    app = create_app(Settings(**settings), worker_command=command)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    opened = Client(transport=transport, base_url="http://vl", timeout=60)
    async with app.router.lifespan_context(app), opened as client:
        if wait:
            await until_ready(client)
        yield client


def scripted(folder: Path, *, wait: bool = True, **settings: Any) -> Any:
    return serving(wait=wait, command=SCRIPTED, model=str(folder), **settings)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        held = await holds()
        while not held:
            await asyncio.sleep(0.02)
            held = await holds()


async def until_ready(client: Client) -> None:
    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(ready)


async def until_health(client: Client, is_so: Callable[[Health], bool]) -> Health:
    async def looked() -> bool:
        return is_so(await health(client))

    await until(looked)
    return await health(client)


async def health(client: Client) -> Health:
    return Health.model_validate_json((await client.get("/readyz")).content)


async def until_calls(folder: Path, are: str) -> None:
    """Wait until the calls of the scripted worker begin with these."""
    async def so() -> bool:
        return (folder / "calls").exists() and (folder / "calls").read_text().startswith(are)

    await until(so)


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    found = Problem.model_validate_json(response.content)
    assert found.code == code
    return found
