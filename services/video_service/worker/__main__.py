"""The process that owns the model: `python -m video_service.worker <fd>`, started and supervised by the HTTP process.

It loads the model once and renders one request at a time. A thread of its own listens to the HTTP process, so that a
cancellation is seen during a step, and so that this process ends at once when the other one is gone, however it went.
"""

import contextlib
import gc
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from contracts.videos import RenderResult, RenderStage, VideoRequest
from video_service.checkpoint_folder import ModelNotYetAvailable, ModelUnavailable
from video_service.progress import RenderCanceled, Report
from video_service.queue.kept_result import keep_result
from video_service.worker.failures import explain, is_out_of_memory
from video_service.worker.messages import (
    CancelCommand,
    Canceled,
    Completed,
    Failed,
    Loaded,
    LoadFailed,
    Progress,
    RenderCommand,
    StartCommand,
    WorkerMessage,
    read_command,
    to_line,
)
from web.calls import Call, work_on
from web.gpu_memory import cuda_memory
from web.logs import configure_logging

log = logging.getLogger(__name__)

EXIT_PARENT_GONE = 0
EXIT_LOAD_FAILED = 3
EXIT_DEVICE_BROKEN = 4


class Engine(Protocol):
    """A loaded model."""

    def __call__(self, request: VideoRequest, output: Path, report: Report) -> RenderResult:
        """Render into `output`; blocking. Raises `RenderCanceled` when `report` did."""
        ...


OpenEngine = Callable[[StartCommand], Engine]


class ParentLink:
    """The socket to the HTTP process: commands in, through a thread; messages out, from any thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._commands: queue.SimpleQueue[StartCommand | RenderCommand] = queue.SimpleQueue()
        self._canceled_id: str | None = None

    def listen(self) -> None:
        """Start the listening thread."""
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def next_command(self) -> StartCommand | RenderCommand:
        """Wait for something to do."""
        return self._commands.get()

    def is_canceled(self, render_id: str) -> bool:
        return self._canceled_id == render_id

    def send(self, message: WorkerMessage) -> None:
        """Raises `OSError` if the HTTP process is gone."""
        with self._sending:
            self._channel.sendall(to_line(message))

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._channel.makefile("rb") as lines:
            for line in lines:
                command = read_command(line)
                if isinstance(command, CancelCommand):
                    self._canceled_id = command.render_id
                else:
                    self._canceled_id = None  # an earlier render of this id may have been canceled too late
                    self._commands.put(command)
        # Not sys.exit: the main thread may be deep in a step, and nobody is left to whom its result matters.
        os._exit(EXIT_PARENT_GONE)


def serve(channel: socket.socket, open_engine: OpenEngine) -> int:
    """Load, then render until the process must end; returns its exit status."""
    link = ParentLink(channel)
    link.listen()
    start = link.next_command()
    assert isinstance(start, StartCommand)
    configure_logging("video_service.worker", start.settings.log_level)
    engine = _load(link, start, open_engine)
    if engine is None:
        return EXIT_LOAD_FAILED
    while True:
        command = link.next_command()
        assert isinstance(command, RenderCommand)
        if not _render(link, engine, command):
            return EXIT_DEVICE_BROKEN


def _load(link: ParentLink, start: StartCommand, open_engine: OpenEngine) -> Engine | None:
    started_s = time.monotonic()
    try:
        engine = open_engine(start)
    except Exception as error:
        known = isinstance(error, ModelUnavailable)
        log.error("the model cannot be loaded: %s", error, exc_info=not known)
        link.send(LoadFailed(
            reason=str(error) if known else f"{start.source.id} cannot be loaded: {error!r:.2000}",
            may_pass=not known or isinstance(error, ModelNotYetAvailable) or is_out_of_memory(error.__cause__),
        ))
        return None
    seconds = round(time.monotonic() - started_s, 3)
    log.info("model loaded", extra={"model": start.source.id, "engine": start.source.info.engine, "seconds": seconds})
    link.send(Loaded(seconds=seconds))
    return engine


def _render(link: ParentLink, engine: Engine, command: RenderCommand) -> bool:
    """Render one request and say what became of it; false if this process cannot go on."""

    def report(stage: RenderStage, done: int, total: int) -> None:
        if link.is_canceled(command.render_id):
            raise RenderCanceled
        link.send(Progress(render_id=command.render_id, stage=stage, done=done, total=total))

    work_on(Call.begun(request_id=command.request_id, traceparent=command.traceparent, job_id=command.render_id))
    message: WorkerMessage
    try:
        request = VideoRequest.model_validate_json(command.request_path.read_bytes())
        result = engine(request, command.output_path, report)
        keep_result(command.output_path, result)
        message = Completed(render_id=command.render_id, result=result, gpu_memory=cuda_memory())
    except RenderCanceled:
        message = Canceled(render_id=command.render_id)
    except Exception as error:  # the job boundary: whatever a render raises is that render's failure
        failure = explain(error)
        log.error(
            "render failed", extra={"render_id": command.render_id, "code": failure.problem.code}, exc_info=error
        )
        message = Failed(render_id=command.render_id, problem=failure.problem, fatal=failure.fatal)
    _release_memory()
    link.send(message)
    return not (isinstance(message, Failed) and message.fatal)


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def open_torch_engine(start: StartCommand) -> Engine:
    """Load the checkpoint, and the engines that were chosen. Raises `ModelUnavailable`."""
    # Imported here: torch takes seconds, in which the listening thread must already run.
    from video_service.generate import generate
    from video_service.load import load_model

    model = load_model(start.source, start.settings)
    if start.source.engine.target is None:
        return partial(generate, model)
    from video_service.engines.shelf import EngineShelf

    shelf = EngineShelf(model, start.settings)

    def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
        with shelf.stream():
            return generate(shelf.model_for(request), request, output, report)

    return engine


def run(open_engine: OpenEngine) -> int:
    """Serve the socket whose descriptor is the first argument of this process."""
    # The kernel's out-of-memory killer should take this process, which is replaced, before the HTTP process.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        try:
            return serve(channel, open_engine)
        except OSError:
            return EXIT_PARENT_GONE


if __name__ == "__main__":
    sys.exit(run(open_torch_engine))
