"""The queue, its runner and the supervisor under every order of events: no illegal step, no crash, nothing forgotten.

The real three on an event loop whose clock stands still until a rule moves it; only the worker's process is played.
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.models import VideoModelList
from contracts.refusal import Refusal
from tests.unit.video_service.queue.played_process import PlayedProcess
from tests.unit.video_service.queue.test_queue import BROKEN, INFO, RESULT, words
from video_service.http.service import Batching, run_renders, supervise
from video_service.queue.files import RenderFiles
from video_service.queue.measures import Work as RenderSize
from video_service.queue.queue import Limits, RenderQueue
from video_service.queue.render import Submission
from video_service.settings import VideoSettings
from video_service.worker.messages import BatchWork, ClipEnded, RenderProgress
from web.worker.link import (
    Canceled,
    Done,
    Failed,
    Loaded,
    LoadFailed,
    Progress,
    Work,
)

IDS = st.sampled_from("abc")
TURNS = st.integers(0, 8)
"""How far the loop gets before the next event."""
WORK = RenderSize(model=INFO.id, voxels=64 * 64 * 9, passes=4)
RENDER_TIMEOUT_S, CANCEL_GRACE_S, LOAD_TIMEOUT_S = 100.0, 10.0, 1000.0


class StoppedClock(asyncio.SelectorEventLoop):
    """A loop whose time is set by the test."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


class VideoQueueMachine(RuleBasedStateMachine):
    """Calls, messages, deaths and the passing of time, in any order."""

    batching = Batching()
    model = INFO

    def __init__(self) -> None:
        super().__init__()
        self.loop = StoppedClock()

    @initialize()
    def begin(self) -> None:
        PlayedProcess.alive = None
        self.patched = mock.patch("web.worker.supervisor.WorkerProcess", PlayedProcess)
        self.patched.start()
        self.files = RenderFiles(Path(tempfile.gettempdir()) / "no-such-folder")
        self.queue = RenderQueue(
            self.files, Limits(max_waiting=2, keep_finished_s=1e9, max_finished=1, max_finished_bytes=1 << 30))
        self.queue.pace.learn(WORK, RESULT.model_copy(update={"timings": {"denoise": 1.0, "total": 2.0}}))
        limits = VideoSettings(
            load_timeout_s=LOAD_TIMEOUT_S, cancel_grace_s=CANCEL_GRACE_S, render_timeout_s=RENDER_TIMEOUT_S)
        self.worker = supervise(limits, self.queue)

        async def start() -> list[asyncio.Task[Any]]:
            self.worker.start()
            return [
                task for task in asyncio.all_tasks() if task.get_name() == "supervisor"
            ] + [asyncio.create_task(run_renders(
                self.queue, self.worker, render_timeout_s=RENDER_TIMEOUT_S, batching=self.batching))]

        self.tasks = self.run(start())
        self.spin(5)
        self.load("loaded", 10)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def spin(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turn())

    def attempt(self, call: Callable[[], object]) -> None:
        async def called() -> None:
            with suppress(Refusal):
                call()

        self.run(called())

    @rule(render_id=IDS, prompt=st.sampled_from(["in", "out"]), between=TURNS, turns=TURNS)
    def put(self, render_id: str, prompt: str, between: int, turns: int) -> None:
        """As the service does it: it looks, reads the image on a thread, and puts."""
        submission = Submission.of(render_id, words(prompt))
        self.attempt(lambda: self.queue.attach(submission))
        self.spin(between)
        self.attempt(lambda: self.put_now(submission))
        self.spin(turns)

    def put_now(self, submission: Submission) -> None:
        render, _ = self.queue.put(submission, self.model)
        # One that was done before the cancellation reached it stays.
        assert render.is_terminal or not render.stop_requested.is_set(), "who puts gets none that is being canceled"

    @rule(render_id=IDS, turns=TURNS)
    def delete(self, render_id: str, turns: int) -> None:
        self.attempt(lambda: self.queue.stop(render_id))
        self.spin(turns)

    @precondition(lambda self: self.queue._running)
    @rule(stopped=st.booleans(), again=st.booleans(), which=st.integers(0, 2), between=TURNS, turns=TURNS)
    def meddle(self, stopped: bool, again: bool, which: int, between: int, turns: int) -> None:
        """One that is begun or at work is canceled, put once more, or both: by chance alone, too rarely."""
        running = self.queue._running[which % len(self.queue._running)]
        assert running.request is not None
        submission = Submission.of(running.id, running.request)
        if stopped:
            self.attempt(lambda: self.queue.stop(submission.render_id))
            self.spin(between)
        if again:
            self.attempt(lambda: self.put_now(submission))
        self.spin(turns)

    @precondition(lambda self: self.works())
    @rule(done=st.integers(0, 4), turns=TURNS)
    def progress(self, done: int, turns: int) -> None:
        process, work = self.at_work()
        process.say(Progress(id=work.id, value=RenderProgress(stage="denoise", done=done, total=4)))
        self.spin(turns)

    @precondition(lambda self: self.works())
    @rule(how=st.sampled_from(["done", "failed", "poisoned", "canceled"]), turns=TURNS)
    def end(self, how: str, turns: int) -> None:
        process, work = self.at_work()
        if how == "canceled" and not process.canceled:
            how = "done"  # nobody asked for its end
        if isinstance(work.payload, BatchWork) and how == "done":
            for place in range(len(work.payload.clips)):
                self.end_clip(process, work, place)
        process.work = None
        process.say({
            "done": Done(id=work.id, result=RESULT), "failed": Failed(id=work.id, problem=BROKEN),
            "poisoned": Failed(id=work.id, problem=BROKEN, fatal=True),
            "canceled": Canceled(id=work.id),
        }[how])
        self.spin(turns)

    @precondition(lambda self: self.works() and isinstance(self.at_work()[1].payload, BatchWork))
    @rule(place=st.integers(0, 2), turns=TURNS)
    def clip_ends(self, place: int, turns: int) -> None:
        """A clip of a batch before the others."""
        process, work = self.at_work()
        self.end_clip(process, work, place % len(work.payload.clips))
        self.spin(turns)

    def end_clip(self, process: PlayedProcess, work: Work, place: int) -> None:
        if place in process.ended:
            return
        process.ended.add(place)
        result = None if place in process.left else RESULT.model_copy(update={"batch": len(work.payload.clips)})
        process.say(Progress(id=work.id, value=ClipEnded(place=place, result=result)))

    @precondition(lambda self: PlayedProcess.alive is not None and not PlayedProcess.alive.loaded)
    @rule(how=st.sampled_from(["loaded", "fails", "refuses"]), turns=TURNS)
    def load(self, how: str, turns: int) -> None:
        process = PlayedProcess.alive
        assert process is not None
        process.loaded = how == "loaded"
        process.say(
            Loaded(info=VideoModelList(data=[self.model]), seconds=1.0) if process.loaded
            else LoadFailed(reason="no", may_pass=how == "fails"))
        self.spin(turns)

    @precondition(lambda self: PlayedProcess.alive is not None)
    @rule(turns=TURNS)
    def die(self, turns: int) -> None:
        assert PlayedProcess.alive is not None
        PlayedProcess.alive.kill()
        self.spin(turns)

    @rule(seconds=st.sampled_from([0.5, 5.0, CANCEL_GRACE_S, RENDER_TIMEOUT_S, LOAD_TIMEOUT_S]), turns=TURNS)
    def time_passes(self, seconds: float, turns: int) -> None:
        self.loop.now_s += seconds
        self.spin(turns)

    @rule()
    def purge(self) -> None:
        self.attempt(self.queue.purge)

    @precondition(lambda self: not self.works())
    @rule(turns=TURNS)
    def recover(self, turns: int) -> None:
        """The next worker is started, and loads."""
        if PlayedProcess.alive is None:
            self.time_passes(30.0, 10)
        if PlayedProcess.alive is not None and not PlayedProcess.alive.loaded:
            self.load("loaded", turns)

    def works(self) -> bool:
        return PlayedProcess.alive is not None and PlayedProcess.alive.work is not None

    def at_work(self) -> tuple[PlayedProcess, Work]:
        process = PlayedProcess.alive
        assert process is not None
        assert process.work is not None
        return process, process.work

    @invariant()
    def nothing_crashed(self) -> None:
        for task in getattr(self, "tasks", []):
            assert not task.done(), task

    @invariant()
    def the_queue_agrees_with_itself(self) -> None:
        if not hasattr(self, "queue"):
            return
        known, waiting = list(self.queue._renders.values()), list(self.queue._waiting)
        running = [render for render in known if render.state == "running"]
        assert {id(render) for render in running} == {id(render) for render in self.queue._running}
        assert len(running) <= self.batching.most
        assert {id(render) for render in known if render.state == "queued"} == {id(render) for render in waiting}
        assert [render.status.queue_position for render in waiting] == [
            index + len(running) for index in range(len(waiting))
        ]
        assert not any(render.stop_requested.is_set() for render in waiting), "what was canceled begins again"
        assert all((render.request is None) == render.is_terminal for render in known)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        try:
            for _ in range(60):  # from now on all goes well: whatever was accepted comes to its end
                process = PlayedProcess.alive
                if process is not None and not process.loaded:
                    self.load("loaded", 5)
                elif process is not None and process.work is not None:
                    self.end("done", 5)
                else:
                    self.time_passes(LOAD_TIMEOUT_S, 5)
                if all(render.is_terminal for render in self.queue._renders.values()):
                    break
            self.nothing_crashed()
            assert all(render.is_terminal for render in self.queue._renders.values()), "a render was forgotten"
        finally:
            self.run(self.close())
            self.loop.close()
            self.files._remover.shutdown()
            self.patched.stop()

    async def close(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class BatchingMachine(VideoQueueMachine):
    """Where renders alike go as one."""

    batching = Batching(most=3, wait_s=4.0)
    model = INFO.model_copy(update={"batches": True})


for machine in (VideoQueueMachine, BatchingMachine):
    machine.TestCase.settings = settings(max_examples=75, stateful_step_count=50, deadline=None)
TestVideoQueue = VideoQueueMachine.TestCase
TestBatchingQueue = BatchingMachine.TestCase
