"""The real gateway app over fake services: only what lies beyond its HTTP clients is pretended."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from PIL import Image

from gateway.app import create_app
from gateway.runtime import Gateway
from gateway.settings import GatewaySettings
from gateway.storage.files import OWNERS, TRASH
from tests.unit.gateway.model_services import Script, Services, running_services


@pytest.fixture(scope="session")
def shared_services() -> Iterator[Services]:
    with running_services() as services:
        yield services


@pytest.fixture
def services(shared_services: Services) -> Services:
    """Both services, willing and with nothing remembered."""
    fresh = Script()
    vars(shared_services.script).update(vars(fresh))
    return shared_services


def gateway_settings(data_dir: Path, services: Services, **overrides: Any) -> GatewaySettings:
    return GatewaySettings.model_validate({
        "data_dir": data_dir, "vl_url_given": services.vl_url, "video_url_given": services.video_url,
        "engine_poll_s": 0.2, "probe_s": 0.25, "min_free_bytes": 1, "reserve_bytes": 0, "provenance": False,
        **overrides,
    })


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that name the database: of either kind, new."""
    return {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("postgres_url")}


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[tuple[httpx.AsyncClient, Gateway]]:
    """A gateway whose lifespan runs: a client of it, and what it holds."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=30) as client,
    ):
        yield client, app.state.gateway


@asynccontextmanager
async def open_client(settings: GatewaySettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway whose lifespan runs."""
    async with open_gateway(settings) as (client, _):
        yield client


@asynccontextmanager
async def open_socket_client(settings: GatewaySettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket: streams arrive piece by piece."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn sets an attribute and has no event to wait for
                await asyncio.sleep(0.01)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=30, trust_env=False, verify=False
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway of this module's tests writes."""
    return tmp_path_factory.mktemp("data")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_client(data_dir: Path, shared_services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(gateway_settings(data_dir, shared_services)) as opened:
        yield opened


@pytest.fixture
def client(module_client: httpx.AsyncClient, services: Services) -> httpx.AsyncClient:
    """A client of one gateway for all tests of the module: starting one takes a second."""
    assert services is not None  # reset before the test
    return module_client


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Makes the bytes of a picture with some content."""

    def make(width: int = 320, height: int = 240, kind: str = "PNG", mode: str = "RGB", **save: Any) -> bytes:
        image = Image.linear_gradient("L").resize((width, height)).convert(mode)
        out = io.BytesIO()
        image.save(out, kind, **save)
        return out.getvalue()

    return make


async def until(
    client: httpx.AsyncClient, job_id: str, reached: Callable[[dict[str, Any]], bool], seconds: float = 60
) -> dict[str, Any]:
    """The job once `reached` holds for it."""
    deadline = asyncio.get_running_loop().time() + seconds
    pause_s = 0.01
    while True:
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        if reached(job):
            return job
        assert asyncio.get_running_loop().time() < deadline, f"never reached: {job}"
        await asyncio.sleep(pause_s)
        pause_s = min(0.05, pause_s * 1.2)  # a look is milliseconds of work, beside the gateway's own


def left_behind(data_dir: Path, job_id: str = "") -> list[str]:
    """Files of all jobs, or of one, on disk."""
    files = data_dir / "gateway" / "files" / job_id
    paths = [path.relative_to(files) for path in files.rglob("*")]
    return sorted(str(path) for path in paths if path.parts[0] not in (OWNERS, TRASH))
