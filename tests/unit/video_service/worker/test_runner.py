"""Laws of giving renders to the worker."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from contracts.models import VideoModelList
from tests.unit.video_service.queue.test_queue import RESULT, make_queue, put
from video_service.http.service import run_renders
from web.worker.errors import NotReady, WorkerDied, WorkStopped
from web.worker.supervisor import Supervisor


class Answers:
    """A supervisor that answers each piece of work with the next of `outcomes`."""

    not_ready = None

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    async def ready(self) -> None: ...

    async def do(self, *_: object, **__: object) -> object:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.parametrize(("outcomes", "state", "code"), [
    ([RESULT], "completed", None),
    ([NotReady("it just died", 1), RESULT], "completed", None),
    ([WorkStopped("canceled")], "canceled", None),
    ([WorkStopped("deadline")], "failed", "deadline_exceeded"),
    ([WorkerDied("It was killed by SIGKILL.")], "failed", "worker_died"),
])
async def test_each_end_of_the_work_is_the_end_of_its_render(
    outcomes: list[Any], state: str, code: str | None, tmp_path: Path
):
    queue = make_queue(tmp_path)
    render = put(queue, "a")
    worker = cast(Supervisor[VideoModelList], Answers(*outcomes))
    running = asyncio.create_task(run_renders(queue, worker, render_timeout_s=1))
    async with asyncio.timeout(60):
        ended = [status async for _, status in render.history.follow()][-1]
    running.cancel()
    assert (ended.state, ended.error.code if ended.error else None) == (state, code)
