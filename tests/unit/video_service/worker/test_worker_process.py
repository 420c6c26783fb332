"""Laws of one worker process, spoken to directly."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.videos import VideoRequest
from video_service.catalog import find_model
from video_service.settings import VideoSettings
from video_service.worker.messages import (
    CancelCommand,
    Canceled,
    Completed,
    Failed,
    Loaded,
    Progress,
    RenderCommand,
    StartCommand,
)
from video_service.worker.worker_process import WorkerDied, WorkerProcess

pytestmark = pytest.mark.slow

SCRIPTED = (sys.executable, str(Path(__file__).parents[3] / "scripted_video_worker.py"))


@pytest.fixture
async def worker(tiny_folder: Path) -> AsyncIterator[WorkerProcess]:
    settings = VideoSettings(model=str(tiny_folder), device="cpu", dtype="float32")
    worker = await WorkerProcess.start(SCRIPTED)
    worker.send(StartCommand(settings=settings, source=find_model(settings)))
    assert isinstance(await worker.receive(), Loaded)
    yield worker
    await worker.stop()


def command(folder: Path, prompt: str = "go", steps: int = 4) -> RenderCommand:
    request = VideoRequest(prompt=prompt, width=64, height=64, num_frames=9, fps=16, seed=1, steps=steps)
    (folder / "request.json").write_text(request.model_dump_json())
    return RenderCommand(render_id="r", request_path=folder / "request.json", output_path=folder / "video.mp4")


async def outcome(worker: WorkerProcess) -> Completed | Failed | Canceled:
    async with asyncio.timeout(60):
        while True:
            message = await worker.receive()
            if not isinstance(message, Progress):
                assert isinstance(message, Completed | Failed | Canceled)
                return message


async def test_a_cancellation_that_came_too_late_spares_the_next_render_of_that_id(
    worker: WorkerProcess, tmp_path: Path
):
    worker.send(CancelCommand(render_id="r"))
    worker.send(command(tmp_path))
    assert isinstance(await outcome(worker), Completed)
    worker.send(command(tmp_path, steps=50))
    worker.send(CancelCommand(render_id="r"))
    assert isinstance(await outcome(worker), Canceled)


async def test_an_unreadable_request_fails_that_render_only(worker: WorkerProcess, tmp_path: Path):
    broken = command(tmp_path)
    broken.request_path.unlink()
    worker.send(broken)
    assert isinstance(await outcome(worker), Failed)
    worker.send(command(tmp_path))
    assert isinstance(await outcome(worker), Completed)


async def test_death_is_told_with_its_signal(worker: WorkerProcess, tmp_path: Path):
    worker.send(command(tmp_path, "die"))
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await outcome(worker)


async def test_stopping_a_worker_in_the_middle_of_a_long_step_takes_less_than_a_second(
    worker: WorkerProcess, tmp_path: Path
):
    worker.send(command(tmp_path, "hang"))
    while (await worker.receive()) != Progress(render_id="r", stage="denoise", done=1, total=4):
        pass
    await asyncio.sleep(0.2)  # into the step that never ends
    async with asyncio.timeout(1):
        await worker.stop()


async def test_a_message_that_cannot_be_read_costs_the_worker_its_life():
    worker = await WorkerProcess.start(("bash", "-c", "echo nonsense >&$0; sleep 60"))
    with pytest.raises(WorkerDied, match="cannot be read"):
        await worker.receive()
    async with asyncio.timeout(1):
        await worker.stop()
