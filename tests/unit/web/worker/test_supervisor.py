"""Laws of the supervised worker, with real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts.models import DeviceInfo
from web.worker.devices import devices_of
from web.worker.errors import NotReady, WorkerDied, WorkFailed, WorkStopped
from web.worker.link import STOP_GRACE_S
from web.worker.supervisor import MAX_FAILURES, Patience, Supervisor

SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))
QUICK = Patience(load_timeout_s=60, cancel_grace_s=20, first_backoff_s=0.05, max_backoff_s=0.4)

Start = Callable[..., Awaitable[Supervisor[dict[str, str]]]]


@asynccontextmanager
async def supervised(
    settings: str = "ready", patience: Patience = QUICK, command: tuple[str, ...] = SCRIPTED, **options: Any
) -> AsyncIterator[Supervisor[dict[str, str]]]:
    supervisor: Supervisor[dict[str, str]] = Supervisor(
        command, settings, name="The model", patience=patience, **options)
    supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a supervisor that is stopped after the test; one with a ready worker unless `settings` say otherwise."""
    async with AsyncExitStack() as stack:
        async def started(settings: str = "ready", **options: Any) -> Supervisor[dict[str, str]]:
            supervisor = await stack.enter_async_context(supervised(settings, **options))
            if settings == "ready":
                await ready(supervisor)
            return supervisor

        yield started


async def ready(supervisor: Supervisor[Any]) -> None:
    async with asyncio.timeout(60):
        await supervisor.ready()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_work_is_done_with_progress_and_the_worker_says_what_it_can_do(start: Start):
    supervisor = await start("ready")
    assert supervisor.info == {"id": "scripted"}
    seen: list[int] = []
    assert await supervisor.do("count", on_progress=seen.append) == "count"
    assert seen == [1, 2, 3, 4, 5]
    assert await supervisor.do(bytes(5_000_000)) == 5_000_000


async def test_the_gpus_that_it_computes_on_are_known_when_loaded_after_work_and_while_it_rests(start: Start):
    supervisor = await start("gpu", patience=replace(QUICK, look_s=0.2))
    await ready(supervisor)
    free = [supervisor.gpus[0].free_bytes]
    assert [gpu.model_dump() for gpu in supervisor.gpus] == [{"name": "GPU 1", "memory_bytes": 1000, "free_bytes": 99}]
    await supervisor.do("echo")
    free.append(supervisor.gpus[0].free_bytes)
    await until(lambda: supervisor.gpus[0].free_bytes not in free)
    assert await supervisor.do("echo") == "echo"
    assert (await start("ready")).gpus == [], "it has no torch"


@pytest.mark.parametrize(("engine", "names"), [("torch-cpu", ["cpu"]), ("trt-cuda", ["GPU 1"]), ("openai", ["GPU 1"])])
def test_a_model_is_computed_on_what_its_engine_says(engine: str, names: list[str]) -> None:
    assert [device.name for device in devices_of(engine, [DeviceInfo(name="GPU 1")])] == names


async def test_a_collection_in_the_middle_of_work_does_not_visit_what_was_imported(start: Start):
    assert await (await start("ready")).do("garbage") < 50_000


async def test_the_end_is_told_before_the_worker_tidies_up(start: Start, tmp_path: Path):
    supervisor, path = await start("ready"), tmp_path / "file"
    assert await supervisor.do(str(path)) == str(path)
    assert not path.exists()
    path.write_text("the end was told")
    assert await supervisor.do("echo") == "echo"
    assert path.read_text() == "tidied up"


async def test_work_is_done_one_at_a_time_in_the_order_of_asking(start: Start):
    supervisor = await start()
    seen: list[str] = []
    doing = [
        asyncio.create_task(supervisor.do("count", on_progress=lambda step, name=name: seen.append(f"{name}{step}")))
        for name in "abc"
    ]
    await asyncio.gather(*doing)
    assert seen == [f"{name}{step}" for name in "abc" for step in range(1, 6)]


async def test_as_many_pieces_of_work_as_it_takes_are_done_at_once_and_stopped_one_by_one(start: Start):
    supervisor = await start(at_once=3)
    stops, begun = [asyncio.Event() for _ in range(3)], [asyncio.Event() for _ in range(3)]
    doing = [
        asyncio.create_task(supervisor.do("slow", on_progress=lambda _, own=own: own.set(), stop=stop))
        for own, stop in zip(begun, stops, strict=True)
    ]
    await asyncio.gather(*(own.wait() for own in begun))
    fourth = asyncio.create_task(supervisor.do("echo"))
    stops[1].set()
    assert await fourth == "echo"  # in the turn of the second, while the others go on
    with pytest.raises(WorkStopped):
        await doing[1]
    assert not doing[0].done()
    assert not doing[2].done()
    with pytest.raises(WorkFailed):
        await supervisor.do("poison")
    for task in (doing[0], doing[2]):  # the device that was lost was theirs, too
        with pytest.raises(WorkerDied):
            await task
    await ready(supervisor)
    assert await asyncio.gather(*(supervisor.do("count") for _ in range(20))) == ["count"] * 20


async def test_before_it_is_loaded_work_is_refused_with_the_reason():
    async with supervised("sleep") as supervisor:
        with pytest.raises(NotReady, match="loading"):
            await supervisor.do("echo")


async def test_what_raises_in_the_work_costs_that_work_alone(start: Start):
    supervisor = await start()
    pid = supervisor.worker_pid
    with pytest.raises(WorkFailed) as failed:
        await supervisor.do("break")
    assert (failed.value.problem.code, supervisor.worker_pid) == ("broken", pid)
    with pytest.raises(WorkFailed):
        await supervisor.do("break")
    assert await supervisor.do("echo") == "echo"


@pytest.mark.parametrize(("by", "reason"), [("event", "canceled"), ("time", "deadline")])
async def test_work_is_stopped_in_its_middle_by_the_same_worker(start: Start, by: str, reason: str):
    supervisor = await start()
    pid, stop = supervisor.worker_pid, asyncio.Event()

    def on_progress(step: int) -> None:
        if by == "event" and step == 2:
            stop.set()

    with pytest.raises(WorkStopped) as stopped:
        await supervisor.do("slow", on_progress=on_progress, stop=stop, timeout_s=0.2 if by == "time" else None)
    assert stopped.value.reason == reason
    assert await supervisor.do("echo") == "echo"
    assert supervisor.worker_pid == pid


async def test_a_caller_that_goes_away_stops_its_work_and_leaves_the_turn_when_the_worker_is_free(start: Start):
    supervisor = await start()
    pid, begun = supervisor.worker_pid, asyncio.Event()
    doing = asyncio.create_task(supervisor.do("slow", on_progress=lambda _: begun.set()))
    waiting = asyncio.create_task(supervisor.do("slow"))  # asked, not begun, and not wanted any more
    await begun.wait()
    doing.cancel()
    waiting.cancel()
    async with asyncio.timeout(15):  # the whole of `slow` takes twenty seconds
        assert await supervisor.do("echo") == "echo"
    assert supervisor.worker_pid == pid


async def test_a_worker_that_hangs_is_ended_by_force_which_is_not_held_against_it(start: Start):
    supervisor = await start(patience=replace(QUICK, cancel_grace_s=0.3))
    pid = supervisor.worker_pid
    for _ in range(MAX_FAILURES):
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)
        with pytest.raises(WorkStopped):
            await supervisor.do("hang", stop=stop)
        assert (supervisor.backoff_s, supervisor.is_stuck) == (0, False)
        await ready(supervisor)
    assert supervisor.worker_pid != pid


async def test_one_death_costs_that_work_alone_and_the_next_worker_starts_at_once(start: Start):
    supervisor = await start()
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await supervisor.do("die")
    assert supervisor.not_ready is not None
    assert (supervisor.backoff_s, supervisor.is_stuck) == (0, False)
    with pytest.raises(NotReady, match="being replaced"):
        await supervisor.do("echo")
    await ready(supervisor)
    assert await supervisor.do("echo") == "echo"


async def test_deaths_in_a_row_make_it_not_ready_for_longer_and_longer_until_work_is_done(start: Start):
    supervisor = await start()
    waits: list[float] = []
    stuck: list[bool] = []
    for _ in range(6):
        with pytest.raises(WorkerDied):
            await supervisor.do("die")
        waits.append(supervisor.backoff_s)
        stuck.append(supervisor.is_stuck)
        await ready(supervisor)
    assert waits == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.4])
    assert stuck == [False, False, True, True, True, True]
    assert await supervisor.do("echo") == "echo"
    with pytest.raises(WorkerDied):
        await supervisor.do("die")
    assert (supervisor.backoff_s, supervisor.is_stuck) == (0, False)


async def test_a_broken_device_fails_its_work_and_ends_the_process_that_holds_it(start: Start):
    supervisor = await start()
    pid = supervisor.worker_pid
    with pytest.raises(WorkFailed):
        await supervisor.do("poison")
    with pytest.raises(NotReady, match="device"):  # before anybody can give it more
        await supervisor.do("echo")
    await ready(supervisor)
    assert (await supervisor.do("echo"), supervisor.worker_pid == pid) == ("echo", False)


async def test_a_worker_that_dies_idle_is_replaced(start: Start):
    supervisor = await start()
    pid = supervisor.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    await until(lambda: supervisor.not_ready is not None)
    await ready(supervisor)
    assert (await supervisor.do("echo"), supervisor.worker_pid == pid) == ("echo", False)


async def test_loading_is_tried_again_until_it_succeeds(start: Start, tmp_path: Path):
    lives = tmp_path / "lives"
    lives.write_text("3")
    supervisor = await start(str(lives))
    await until(lambda: supervisor.is_stuck)
    await ready(supervisor)
    assert (lives.read_text(), supervisor.is_stuck, supervisor.backoff_s) == ("0", False, 0)


@pytest.mark.parametrize(
    ("settings", "reason", "stuck"),
    [("refuse", "The weights are damaged.", True), ("later", "There is no network.", False),
     ("die", "The worker died. It was killed by SIGKILL, as the system does when memory runs out.", False)],
)
async def test_a_failed_load_is_told_and_hopeless_at_once_only_where_trying_again_changes_nothing(
    start: Start, settings: str, reason: str, stuck: bool
):
    supervisor = await start(settings, patience=Patience(first_backoff_s=60, max_backoff_s=60))
    await until(lambda: supervisor.backoff_s)
    assert (supervisor.not_ready, supervisor.is_stuck) == (reason, stuck)
    with pytest.raises(NotReady) as refused:
        await supervisor.do("echo")
    assert refused.value.retry_after_s == 60


@pytest.mark.parametrize(
    ("settings", "command", "load_timeout_s", "reason"),
    [("sleep", SCRIPTED, 0.5, "did not load within 0.5 s"), ("ready", ("/no/such/program",), 30, "cannot be started"),
     ("ready", ("bash", "-c", "echo nonsense nonsense >&$0; sleep 60"), 30, "cannot be read")],
)
async def test_a_worker_that_never_gets_ready_is_given_up(
    settings: str, command: tuple[str, ...], load_timeout_s: float, reason: str
):
    patience = Patience(load_timeout_s=load_timeout_s, first_backoff_s=60, max_backoff_s=60)
    async with supervised(settings, patience, command) as supervisor:
        await until(lambda: supervisor.backoff_s)
        assert reason in (supervisor.not_ready or "")


async def test_stopping_in_the_middle_of_a_long_step_needs_no_force(start: Start):
    supervisor = await start()
    worker = psutil.Process(supervisor.worker_pid)
    doing = asyncio.create_task(supervisor.do("hang"))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(STOP_GRACE_S):
        await supervisor.stop()
    with pytest.raises(WorkerDied, match="stopping"):
        await doing
    assert not worker.is_running()
