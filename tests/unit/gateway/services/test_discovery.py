"""A service's name that leads to several addresses: who is a member, who gets work, who is let go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from contracts.videos import VideoRequest
from gateway.database.database import Database
from gateway.jobs.store import JobStore
from gateway.services import discovery
from gateway.services.clients import connect
from gateway.services.discovery import MISSED_TO_LEAVE, DiscoveredPool, ask_directory, resolve
from gateway.services.errors import ServiceError
from gateway.services.render_places import RenderPlaces
from gateway.services.video import Renderers, VideoClient
from on_ray.directory import Directory
from tests.unit.gateway.jobs.test_store import new_job
from tests.unit.gateway.model_services import Script
from tests.unit.gateway.services.test_video import Line

REQUEST = VideoRequest(prompt="a kite", width=256, height=192, num_frames=5, fps=16, steps=4, seed=1)
NAME = "http://video:8002"
ONE, TWO, THREE = (f"http://10.0.0.{n}:8002" for n in (1, 2, 3))


@dataclass
class Pods:
    """What the name resolves to, and who listens at each address."""

    addresses: Sequence[str] | OSError
    lines: dict[str, Line] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses

    def connect(
        self, url: str, *, host: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> VideoClient:
        if host is not None:
            self.named.add(host)
        if transport is None:
            transport = self.lines.setdefault(url, Line(Script()))
        return VideoClient(connect(url, token=None, connect_timeout_s=1, host=host, transport=transport))


@dataclass(frozen=True)
class Followed:
    pods: Pods
    pool: DiscoveredPool[VideoClient]
    renderers: Renderers
    store: JobStore

    async def look(self, times: int = 1) -> list[str]:
        """As the gateway does every few seconds; the addresses of the members."""
        for _ in range(times):
            await self.pool.look()
            await self.pool.probe()
        return [member.address for member in self.pool.members]

    def script(self, address: str) -> Script:
        return self.pods.lines[address].script

    def addresses(self, *wanted: str) -> None:
        self.pods.addresses = wanted


@asynccontextmanager
async def followed(
    folder: Path, *addresses: str, urls: Sequence[str] = (NAME,), forget_s: float = 0.0
) -> AsyncIterator[Followed]:
    pods = Pods(addresses)
    database = Database(f"sqlite:///{folder / 'jobs.sqlite'}")
    pool = DiscoveredPool(urls, pods.connect, forget_s=forget_s, resolve=pods.resolve)
    renderers = Renderers(pool, RenderPlaces(database), abandon_after_s=3600)
    try:
        yield Followed(pods=pods, pool=pool, renderers=renderers, store=JobStore(database))
    finally:
        await pool.aclose()
        database.close()


async def test_a_name_with_several_addresses_is_several_members(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2") as two:
        assert await two.look() == [ONE, TWO]
        assert two.pods.named == {"video:8002"}, "they are called by their name all the same"
        for job_id in ("a", "b", "c", "d"):
            two.store.add(new_job(job_id), 100)
            await two.renderers.put(job_id, REQUEST)
        assert [sorted(two.script(address).puts) for address in (ONE, TWO)] == [["a", "c"], ["b", "d"]]


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:8002", "http://[::1]:8002", "http://localhost:8002", "https://video.example", "http://one/video",
])
async def test_what_is_no_plain_name_is_one_member(tmp_path: Path, url: str) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2", urls=[url]) as one:
        assert await one.look() == [url]


async def test_addresses_join_once_a_probe_found_them_ready(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1") as name:
        await name.look()
        name.addresses("10.0.0.1", "10.0.0.2")
        await name.pool.look()
        assert [member.takes_work for member in name.pool.members] == [True, False], "not asked yet"
        assert name.pool.num_healthy() == 1
        await name.look()
        assert name.pool.num_healthy() == 2


async def test_a_name_that_does_not_resolve_delays_and_changes_nothing(tmp_path: Path) -> None:
    async with followed(tmp_path) as name:
        name.pods.addresses = socket.gaierror(socket.EAI_AGAIN, "try again")
        await name.look()
        found = name.pool.absence()
        assert found is not None
        assert "video does not resolve" in found[0]
        name.store.add(new_job("a"), 100)
        with pytest.raises(ServiceError) as refused:
            await name.renderers.put("a", REQUEST)
        assert (refused.value.kind, refused.value.heard) == ("unavailable", "never")
        name.addresses("10.0.0.1")
        assert await name.look() == [ONE]
        assert (await name.renderers.put("a", REQUEST)).address == ONE
        name.pods.addresses = socket.gaierror(socket.EAI_NONAME, "no such name")
        assert await name.look(2 * MISSED_TO_LEAVE) == [ONE]
        assert name.pool.absence() is None
        name.addresses()
        assert await name.look(2 * MISSED_TO_LEAVE) == [ONE], "an empty answer is none"


async def test_a_resolver_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_RESOLVE_S", 0.01)
    asked = []

    async def hangs(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        await asyncio.Event().wait()
        return []

    pool = DiscoveredPool([NAME], Pods(()).connect, resolve=hangs)
    for _ in range(3):
        await pool.look()
    await pool.probe()
    found = pool.absence()
    assert asked == ["video"]
    assert found is not None
    assert "not answered within" in found[0]
    await pool.aclose()


async def test_an_address_that_left_its_name_ends_its_renders_and_gets_no_new_ones(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2") as name:
        await name.look()
        name.store.add(new_job("a"), 100)
        await name.renderers.put("a", REQUEST)
        name.addresses("10.0.0.2")
        await name.look()
        assert [member.leaving for member in name.pool.members] == [False, False], "one answer may be a part"
        assert await name.look(MISSED_TO_LEAVE) == [ONE, TWO]
        assert (await name.renderers.put("a", REQUEST)).address == ONE
        for job_id in ("b", "c"):
            name.store.add(new_job(job_id), 100)
            assert (await name.renderers.put(job_id, REQUEST)).address == TWO
        name.pods.lines[ONE].up = False
        assert await name.look(2) == [TWO]
        assert (await name.renderers.put("a", REQUEST)).address == TWO


async def test_an_address_that_is_gone_and_silent_loses_its_renders_at_once(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2", forget_s=3600) as name:
        await name.look()
        name.store.add(new_job("a"), 100)
        await name.renderers.put("a", REQUEST)
        name.pods.lines[ONE].up = False
        with pytest.raises(ServiceError):
            await name.renderers.put("a", REQUEST)  # its name still leads there: it may only restart
        name.addresses("10.0.0.2")
        await name.look(MISSED_TO_LEAVE)
        assert (await name.renderers.put("a", REQUEST)).address == TWO


async def test_a_gone_address_that_another_service_got_keeps_no_render(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2") as name:
        await name.look()
        name.store.add(new_job("a"), 100)
        await name.renderers.put("a", REQUEST)
        name.addresses("10.0.0.2")
        await name.look(MISSED_TO_LEAVE)
        name.pods.lines[ONE] = Line(Script())
        gone = name.pool.at(ONE)
        assert gone is not None
        gone.client = name.pods.connect(ONE)  # who answers there now knows nothing of it
        assert (await name.renderers.put("a", REQUEST)).address == TWO
        assert name.script(ONE).puts == []


async def test_a_gateway_that_starts_finds_a_render_where_it_was(tmp_path: Path) -> None:
    async with followed(tmp_path, "10.0.0.1", "10.0.0.2") as name:
        name.store.add(new_job("a"), 100)
        RenderPlaces(Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")).choose("a", TWO)
        assert (await name.renderers.put("a", REQUEST)).address == TWO, "before the name was looked up"
        assert await name.look() == [TWO, ONE]


async def test_a_render_left_at_an_address_that_is_gone_is_kept_in_mind_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path, "10.0.0.1") as name:
        await name.look()
        places = RenderPlaces(Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}"))
        places.choose("a", THREE)
        await name.renderers.clear_left()
        assert await name.look() == [ONE], "nobody is looked for there"
        assert places.all_of("a") == [THREE]
        in_an_hour = discovery.time.time() + 3601
        monkeypatch.setattr("gateway.services.video.time.time", lambda: in_an_hour)
        await name.renderers.clear_left()
        assert places.all_of("a") == []


async def test_of_a_name_on_both_families_one_address_each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*families: tuple[socket.AddressFamily, str]) -> None:
        answer = [(family, socket.SOCK_STREAM, 6, "", (address, 8002)) for family, address in families]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)

    four, six = (socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")
    found(six, four, four)
    assert await resolve("video", 8002) == ["10.0.0.1"]
    found(six)
    assert await resolve("video", 8002) == ["fd00::1"]


@asynccontextmanager
async def listening(directory: Directory) -> AsyncIterator[str]:
    """The directory on a socket; its URL, as GATEWAY_VIDEO_URL has it."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/{path:path}", directory.__call__)])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn sets an attribute and has no event to wait for
            await asyncio.sleep(0.01)
        yield f"ray://127.0.0.1:{bound.getsockname()[1]}/video"
    finally:
        server.should_exit = True
        await serving


async def test_what_a_directory_lists_are_members() -> None:
    directory = Directory("ours")
    async with listening(directory) as url:
        pods = Pods(())
        pool = DiscoveredPool([url], pods.connect, forget_s=0.0, directory=partial(ask_directory, token="theirs"))
        directory.joined("video", "http://10.0.0.1:31001")
        directory.joined("vl", "http://10.0.0.9:31009")
        await pool.look()
        await pool.probe()
        found = pool.absence()
        assert found is not None
        assert "401" in found[0], "a token that is not the directory's is said"
        pool = DiscoveredPool([url], pods.connect, forget_s=0.0, directory=partial(ask_directory, token="ours"))
        await pool.look()
        assert [member.address for member in pool.members] == ["http://10.0.0.1:31001"]
        assert pods.named == set()
        directory.left("video", "http://10.0.0.1:31001")
        directory.joined("video", "http://10.0.0.2:31002")
        for _ in range(MISSED_TO_LEAVE):
            await pool.look()
        assert [member.leaving for member in pool.members] == [True, False]
        assert pool.recall("http://10.0.0.3:31003") is not None, "a gateway that starts finds a render where it was"
        await pool.aclose()


async def test_a_directory_forgets_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(None)
    async with listening(directory) as url:
        directory.joined("video", "http://10.0.0.1:31001")
        assert list(await ask_directory(url.replace("ray", "http"))) == ["http://10.0.0.1:31001"]
        monkeypatch.setattr("on_ray.directory.FORGOTTEN_AFTER_S", 0.0)
        assert list(await ask_directory(url.replace("ray", "http"))) == []
