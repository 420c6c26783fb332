"""Laws of the supervisor that need no worker."""

import asyncio
from pathlib import Path

import pytest

from video_service.queue.files import RenderStore
from video_service.queue.queue import RenderQueue
from video_service.settings import VideoSettings
from video_service.worker.messages import LoadFailed
from video_service.worker.supervisor import MAX_BACKOFF_S, Supervisor
from video_service.worker.worker_process import WorkerDied, WorkerProcess


@pytest.fixture
def supervisor(tiny_folder: Path, tmp_path: Path) -> Supervisor:
    settings = VideoSettings(model=str(tiny_folder), data_dir=tmp_path, device="cpu", dtype="float32")
    renders = RenderQueue(RenderStore(tmp_path), max_waiting=1, keep_finished_s=1, max_finished=1)
    return Supervisor(settings, renders, worker_command=("false",))


async def test_a_stop_that_meets_a_dying_worker_is_not_lost(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch):
    async def die_while_being_stopped(_: WorkerProcess) -> None:
        running.cancel()
        raise WorkerDied("It ended with exit status 1.")

    monkeypatch.setattr(WorkerProcess, "receive", die_while_being_stopped)
    running = asyncio.create_task(supervisor.run())
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done == {running}
    assert running.cancelled()


async def test_the_wait_between_failing_starts_grows_to_a_bound(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []

    async def note(_: Supervisor, delay_s: float) -> None:
        waits.append(delay_s)
        if len(waits) == 7:
            raise asyncio.CancelledError

    monkeypatch.setattr(Supervisor, "_pause", note)
    with pytest.raises(asyncio.CancelledError):
        await supervisor.run()
    assert waits == [1, 2, 4, 8, 16, MAX_BACKOFF_S, MAX_BACKOFF_S]
    assert supervisor.not_ready is not None
    assert "exit status 1" in supervisor.not_ready


def after_one_failed_start(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, message: LoadFailed) -> bool:
    """Whether the supervisor is hopeless when its first worker said `message`."""
    async def say(_: WorkerProcess) -> LoadFailed:
        return message

    async def stop(_: Supervisor, delay_s: float) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(WorkerProcess, "receive", say)
    monkeypatch.setattr(Supervisor, "_pause", stop)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(supervisor.run())
    assert supervisor.not_ready == message.reason
    return supervisor.is_hopeless


def test_weights_that_cannot_be_read_are_hopeless_at_once(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch):
    assert after_one_failed_start(supervisor, monkeypatch, LoadFailed(reason="damaged", may_pass=False))


def test_a_network_or_memory_that_is_short_is_not_hopeless_yet(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
):
    assert not after_one_failed_start(supervisor, monkeypatch, LoadFailed(reason="no network", may_pass=True))
