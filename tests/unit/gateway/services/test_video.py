"""Several video services: who gets a render, who keeps it, and who is told to drop it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from contracts.models import Health
from contracts.videos import VideoRequest
from gateway.database.database import Database
from gateway.jobs.store import JobStore
from gateway.services.clients import connect
from gateway.services.errors import ServiceError
from gateway.services.pool import Member, Pool, Probe
from gateway.services.render_places import RenderPlaces
from gateway.services.video import Renderers, VideoClient
from tests.unit.gateway.jobs.test_store import new_job
from tests.unit.gateway.model_services import Script, video_app

REQUEST = VideoRequest(prompt="a kite", width=256, height=192, num_frames=5, fps=16, steps=4, seed=1)


class Line(httpx.AsyncBaseTransport):
    """The network to one service: it can be cut before the request arrives, or before the answer comes back."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._asgi = httpx.ASGITransport(video_app(script))
        self.up = True
        self.answers_get_lost = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("connection refused")
        response = await self._asgi.handle_async_request(request)
        if self.answers_get_lost:
            raise httpx.ReadError("connection reset")
        return response


@dataclass(frozen=True)
class Two:
    """Two video services, the lines to them, and what decides between them."""

    scripts: tuple[Script, Script]
    lines: tuple[Line, Line]
    renderers: Renderers
    places: RenderPlaces
    store: JobStore

    def queue(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.store.add(new_job(job_id), 100)


@asynccontextmanager
async def two_services(folder: Path, abandon_after_s: float = 0.05) -> AsyncIterator[Two]:
    scripts = (Script(), Script())
    for script in scripts:
        script.may_go_on.clear()
    lines = (Line(scripts[0]), Line(scripts[1]))
    database = Database(f"sqlite:///{folder / 'jobs.sqlite'}")
    places = RenderPlaces(database)
    renderers = Renderers(Pool([
        Member(url, VideoClient(connect(url, token=None, connect_timeout_s=1, transport=line)))
        for url, line in zip(("http://one", "http://two"), lines, strict=True)
    ]), places, abandon_after_s=abandon_after_s)
    try:
        yield Two(scripts=scripts, lines=lines, renderers=renderers, places=places, store=JobStore(database))
    finally:
        for script in scripts:
            script.may_go_on.set()
        await renderers.pool.aclose()
        database.close()


async def test_each_render_goes_to_the_service_with_the_fewest_renders(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        two.queue("a", "b", "c", "d")
        for job_id in ("a", "b", "c", "d"):
            await two.renderers.put(job_id, REQUEST)
        assert [sorted(script.puts) for script in two.scripts] == [["a", "c"], ["b", "d"]]


async def test_a_render_asked_for_again_goes_where_it_was_before(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        two.queue("a", "b")
        await two.renderers.put("a", REQUEST)
        await two.renderers.put("b", REQUEST)
        for _ in range(3):
            assert (await two.renderers.put("b", REQUEST)).address == "http://two"
        assert two.scripts[1].puts == ["b"] * 4
        assert two.scripts[0].begun + two.scripts[1].begun == ["a", "b"]


async def test_the_address_is_written_down_before_the_service_hears_of_the_render(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        two.queue("a")
        two.lines[0].up = two.lines[1].up = False
        with pytest.raises(ServiceError):
            await two.renderers.put("a", REQUEST)
        assert two.places.current("a") is not None


async def test_a_service_that_never_heard_of_a_render_is_left_at_once(tmp_path: Path) -> None:
    async with two_services(tmp_path, abandon_after_s=3600) as two:
        two.queue("a")
        two.lines[0].up = False
        assert (await two.renderers.put("a", REQUEST)).address == "http://two"
        assert two.places.current("a") == "http://two"


async def test_a_full_service_passes_the_render_on(tmp_path: Path) -> None:
    async with two_services(tmp_path, abandon_after_s=3600) as two:
        two.queue("a")
        two.scripts[0].busy_answers = 1
        assert (await two.renderers.put("a", REQUEST)).address == "http://two"


async def test_a_render_that_may_have_begun_waits_for_its_service_while_that_may_come_back(tmp_path: Path) -> None:
    async with two_services(tmp_path, abandon_after_s=3600) as two:
        two.queue("a")
        two.lines[0].answers_get_lost = True  # it begins to render, and nobody hears so
        for _ in range(3):
            with pytest.raises(ServiceError):
                await two.renderers.put("a", REQUEST)
        two.lines[0].answers_get_lost = False
        assert (await two.renderers.put("a", REQUEST)).address == "http://one"
        assert (two.scripts[0].begun, two.scripts[1].begun) == (["a"], [])


async def test_a_service_gone_for_good_loses_its_render_and_drops_it_when_it_comes_back(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        two.queue("a")
        await two.renderers.put("a", REQUEST)
        two.lines[0].up = False
        with pytest.raises(ServiceError):
            await two.renderers.put("a", REQUEST)
        await asyncio.sleep(0.06)
        assert (await two.renderers.put("a", REQUEST)).address == "http://two"
        assert await two.renderers.clear_left() == 0  # it is still away
        two.lines[0].up = True
        await two.renderers.pool.probe()
        await two.renderers.clear_left()  # cancels the render
        assert two.scripts[0].statuses["a"].state == "canceled"
        await two.renderers.clear_left()  # removes it
        assert "a" not in two.scripts[0].statuses
        assert two.scripts[1].deleted == []
        assert two.places.all_of("a") == ["http://two"]


async def test_what_a_crash_left_at_a_service_after_its_job_ended_is_removed_by_the_sweep(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        two.queue("kept", "ended", "removed")
        for job_id in ("kept", "ended", "removed"):
            await two.renderers.put(job_id, REQUEST)
        two.store.move("ended", "canceled")
        two.store.move("removed", "canceled")
        two.store.remove("removed")
        await two.renderers.clear_left()
        await two.renderers.clear_left()
        assert sorted([*two.scripts[0].statuses, *two.scripts[1].statuses]) == ["kept"]
        assert two.places.left() == []


async def test_a_service_that_never_comes_back_is_kept_in_mind_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_services(tmp_path) as two:
        two.queue("a", "b")
        two.places.choose("a", "http://gone")
        await two.renderers.put("b", REQUEST)
        two.store.move("a", "canceled")
        await two.renderers.clear_left()
        assert two.places.all_of("a") == ["http://gone"]
        week_s = time.time() + 7 * 86400
        monkeypatch.setattr(time, "time", lambda: week_s)
        await two.renderers.clear_left()
        assert (two.places.all_of("a"), two.places.all_of("b")) == ([], ["http://one"])


async def test_a_render_that_failed_is_made_elsewhere_and_dropped_where_it_was(tmp_path: Path) -> None:
    async with two_services(tmp_path, abandon_after_s=3600) as two:
        two.queue("a")
        await two.renderers.put("a", REQUEST)
        await two.renderers.leave("a", "tiny-wan")
        assert (await two.renderers.put("a", REQUEST)).address == "http://two"
        await two.renderers.clear_left()
        assert two.scripts[0].deleted == ["a"]
        two.lines[0].up = False
        await two.renderers.pool.probe()
        await two.renderers.leave("a", "tiny-wan")
        assert two.places.current("a") == "http://two", "there is no other"


async def test_work_is_there_for_a_model_while_one_address_that_runs_it_takes_work(tmp_path: Path) -> None:
    async with two_services(tmp_path) as two:
        one, other = two.renderers.pool.members
        one.models, other.models = frozenset({"small", "both"}), frozenset({"large", "both"})
        pool = two.renderers.pool
        assert pool.absent_models() == frozenset()
        one.full("no room", 0.1)
        assert pool.absent_models() == {"small"}
        assert pool.absence("small") == ("no room", 0.0)
        assert pool.absence("both") is None
        assert pool.absence("unheard of") is None, "it says best itself that it has no such model"
        await asyncio.sleep(0.11)
        assert pool.absent_models() == frozenset()
        two.lines[0].up = two.lines[1].up = False
        await pool.probe()
        assert pool.absent_models() == {"small", "large", "both"}


def test_an_address_is_put_aside_after_two_failures_and_returns_after_a_probe(tmp_path: Path) -> None:
    line = Line(Script())
    client = VideoClient(connect("http://one", token=None, connect_timeout_s=1, transport=line))
    other = VideoClient(connect("http://two", token=None, connect_timeout_s=1, transport=line))
    pool = Pool([Member("http://one", client), Member("http://two", other)])
    one, two = pool.members
    one.failed("reset", silent=True)
    assert pool.ranked()[0] is one
    one.failed("reset", silent=True)
    assert pool.ranked()[0] is two
    assert one.silent_for_s() > 0
    one.probed(Probe(health=Health(ready=False, reasons=["loading"]), answered=True))
    assert (one.healthy, one.silent_for_s()) == (False, 0.0)
    one.probed(Probe(health=Health(ready=True), answered=True))
    assert pool.ranked()[0] is one


def test_a_render_goes_only_to_a_service_that_runs_its_model() -> None:
    line = Line(Script())
    members = [
        Member(url, VideoClient(connect(url, token=None, connect_timeout_s=1, transport=line)))
        for url in ("http://one", "http://two")
    ]
    members[0].models, members[1].models = frozenset({"small"}), frozenset({"large"})
    assert [member.address for member in Pool(members).ranked(model="large")] == ["http://two"]


class Says:
    """A service that says this of itself."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def probe(self) -> Probe:
        return Probe(health=self._health, answered=True)

    async def aclose(self) -> None:
        pass


async def test_several_addresses_are_stuck_only_when_every_one_is() -> None:
    stuck, loading = Health(ready=False, stuck=True, reasons=["half"]), Health(ready=False, reasons=["loading"])
    for healths, expected in (([stuck, stuck], True), ([stuck, loading], False), ([stuck, Health(ready=True)], False)):
        found = await Pool([Member(f"http://{i}", Says(health)) for i, health in enumerate(healths)]).health()
        assert found.stuck is expected
