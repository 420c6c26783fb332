"""What the routes work with: the queue, the supervised worker, and how that one renders what waits in the other."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import Problem
from contracts.models import Health, LoraInfo, VideoModelInfo, VideoModelList
from contracts.refusal import Refusal
from contracts.resolve import find_model, resolve_request
from contracts.videos import RenderResult, VideoRequest
from video_service.queue.queue import RenderQueue
from video_service.queue.render import Render, Submission
from video_service.settings import VideoSettings
from video_service.weights.lora import LoraFolder
from video_service.worker.batch import render_together, too_late
from video_service.worker.messages import LookAgain, RenderProgress, RenderWork
from video_service.worker.previews import previews_shown
from web.calls import JOB_ID, working
from web.worker.devices import devices_of
from web.worker.errors import NotReady, WorkerDied, WorkFailed, WorkStopped
from web.worker.faults import end_process_if_it_crashes
from web.worker.supervisor import Patience, Supervisor

PURGE_INTERVAL_S = 60.0
LOOK_INTERVAL_S = 60.0
_LOADING_RETRY_S = 2
_GOES = "This service was told to end: it finishes what it renders and takes nothing new."
WORKER_COMMAND = (sys.executable, "-m", "video_service.worker")


class ServiceUnavailable(Refusal):
    """Nothing can be rendered here now; the detail says why."""

    status, code, title = 503, "unavailable", "Nothing can be rendered now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How many renders may be denoised as one, and how long the first of them waits for the others."""

    most: int = 1
    wait_s: float = 0.0


class VideoService:
    """One queue and one supervised worker, from `start` to `stop`."""

    def __init__(
        self, renders: RenderQueue, worker: Supervisor[VideoModelList], loras: LoraFolder, *, render_timeout_s: float,
        batching: Batching,
    ) -> None:
        self._loras = loras
        self.renders = renders
        self.worker = worker
        self._render_timeout_s = render_timeout_s
        self._batching = batching
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    def start(self) -> None:
        """Start the worker; loading goes on in the background."""
        self.worker.start()
        self._tasks = [
            asyncio.create_task(run_renders(
                self.renders, self.worker, render_timeout_s=self._render_timeout_s, batching=self._batching,
            ), name="the runner"),
            asyncio.create_task(self._purge_forever(), name="the purge"),
            asyncio.create_task(self._look_forever(), name="the look for absent models"),
        ]
        for task in self._tasks:
            end_process_if_it_crashes(task)

    def drain(self) -> None:
        """Take nothing new and let go of what waits, which another service is given then; what runs goes on."""
        self._draining = True
        self.renders.drop_waiting()

    @property
    def is_drained(self) -> bool:
        """Whether the end would lose nothing: no render runs, and every finished video was fetched and removed."""
        return self.renders.is_empty or any(task.done() for task in self._tasks)  # after a crash nothing ends any more

    async def stop(self) -> None:
        """End the followers and the worker in bounded time. What is not rendered is forgotten."""
        self.renders.end_followers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worker.stop()

    async def put(self, render_id: str, request: VideoRequest) -> tuple[Render, bool]:
        """Find the render, or check the request against the model and queue it; true if it was queued now.

        Raises `ServiceUnavailable`, `ParameterRefused` and what `RenderQueue.put` raises.
        """
        submission = await asyncio.to_thread(Submission.of, render_id, request)
        if existing := self.renders.attach(submission):  # also while no model is there: what is done is done
            return existing, False
        if self._draining:
            raise ServiceUnavailable(_GOES, retry_after_s=_LOADING_RETRY_S)
        resolve_request(request, self._model_of(request))
        return self.renders.put(submission, self._model_of(request))

    def _model_of(self, request: VideoRequest) -> VideoModelInfo:
        models = self.usable_models()
        model = find_model(request.model, models.data, models.absent)
        return _with_loras(model, self._loras.listed()) if request.loras else model

    def models(self) -> VideoModelList:
        """What there is, as it was last known while no worker is ready; raises `ServiceUnavailable` before that."""
        models, loras = self.worker.info or self.usable_models(), self._loras.listed()
        return models.model_copy(update={"data": [_with_loras(model, loras).model_copy(
            update={"devices": devices_of(model.engine, self.worker.gpus)}) for model in models.data]})

    def usable_models(self) -> VideoModelList:
        """What there is to render with; raises `ServiceUnavailable` before a first model, or where workers keep dying.
        """
        info = self.worker.info
        if info is not None and not self.worker.is_stuck:
            return info
        try:
            self.worker.require_ready()
        except NotReady as error:
            raise ServiceUnavailable(
                str(error), retry_after_s=max(_LOADING_RETRY_S, error.retry_after_s)
            ) from None
        raise AssertionError("a ready worker has said what it can do")

    def health(self) -> Health:
        """Ready while a render that comes now would be rendered."""
        info = self.worker.info
        details = {} if info is None else _details(info)
        if self.worker.worker_pid is not None:
            details["worker_pid"] = str(self.worker.worker_pid)
        reason = _GOES if self._draining else self.worker.not_ready
        return Health(
            ready=reason is None, stuck=self.worker.is_stuck, reasons=[reason] if reason else [], details=details)

    async def _purge_forever(self) -> None:
        while True:
            await asyncio.sleep(PURGE_INTERVAL_S)
            self.renders.purge()

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            if self.worker.info is not None and self.worker.info.absent and self.renders.is_idle:
                with contextlib.suppress(NotReady, WorkerDied, WorkFailed):  # the next look is soon
                    self.worker.info = await self.worker.do(LookAgain())


def _with_loras(model: VideoModelInfo, listed: Sequence[LoraInfo]) -> VideoModelInfo:
    """What requests to this model may name now; the worker knows of those that did not fit as they were then."""
    misfits = {(lora.id, lora.modified_at): lora for lora in model.loras}
    loras = [misfits.get((lora.id, lora.modified_at), lora) for lora in listed]
    return model.model_copy(update={"loras": [] if model.clips else loras})


def _details(models: VideoModelList) -> dict[str, str]:
    """What readiness says of the models, the default's first."""
    first, *others = models.data
    told = {"model": first.id, "revision": first.revision, "engine": first.engine}
    if first.engine_reason:
        told["engine_reason"] = first.engine_reason
    told |= {f"model {model.id}": model.state for model in others}
    return told | {f"model {model.id}": f"absent: {model.reason}" for model in models.absent}


def supervise(
    settings: VideoSettings, renders: RenderQueue, command: Sequence[str] = WORKER_COMMAND
) -> Supervisor[VideoModelList]:
    """The supervisor of the process that renders; not started yet."""

    def on_loss() -> None:
        if supervisor.is_stuck:  # whoever follows what waits here learns that it is not known, and puts it elsewhere
            renders.drop_waiting()

    supervisor: Supervisor[VideoModelList] = Supervisor(
        command, settings.model_copy(update={"internal_token": None}), name=", ".join(settings.model_names),
        patience=Patience(load_timeout_s=settings.load_timeout_s, cancel_grace_s=settings.cancel_grace_s),
        on_gpu_memory=renders.metrics.gpu_memory, on_loss=on_loss,
    )
    return supervisor


async def run_renders(
    renders: RenderQueue, worker: Supervisor[VideoModelList], *, render_timeout_s: float,
    batching: Batching = Batching(),
) -> None:
    """Render what waits, for ever."""
    while True:
        await worker.ready()
        await renders.wait()
        if batching.most > 1 and batching.wait_s:
            await renders.wait_for_company(batching.most, batching.wait_s)
        if worker.not_ready is None and (begun := renders.start_next(batching.most)):
            first, *others = begun
            async with previews_shown(begun):
                with working("render", first.call | {JOB_ID: first.id}):
                    if others:
                        await render_together(renders, begun, worker, render_timeout_s)
                    else:
                        await _render(renders, first, worker, render_timeout_s)
            renders.purge()


async def _render(
    renders: RenderQueue, render: Render, worker: Supervisor[VideoModelList], timeout_s: float
) -> None:
    """Bring one render to its end, whichever it is."""
    assert render.request is not None

    def on_progress(progress: RenderProgress | VideoModelList) -> None:
        if isinstance(progress, VideoModelList):
            worker.info = progress
            return
        renders.advance(render, progress.stage, progress.done, progress.total)

    try:
        result: RenderResult = await worker.do(
            RenderWork(request=render.request, folder=render.folder), on_progress=on_progress,
            stop=render.stop_requested, timeout_s=timeout_s,
        )
    except NotReady:
        renders.put_back(render)
    except WorkFailed as error:
        renders.fail(render, error.problem)
    except WorkStopped as stopped:
        renders.fail(render, too_late(timeout_s) if stopped.reason == "deadline" else None)
    except WorkerDied as death:
        renders.fail(render, _died(death))
    else:
        renders.complete(render, result)


def _died(death: WorkerDied) -> Problem:
    return Problem(
        status=500, code="worker_died", title="The worker died in this render",
        detail=f"The process that renders died. {death} Where memory runs out, a smaller size or fewer frames need "
        "less. Other renders go on; put this one again to retry.",
    )
