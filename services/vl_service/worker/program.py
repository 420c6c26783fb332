"""What the worker process does with each piece of work, and which backend it loads.

torch takes seconds to import, in which the thread that listens to the HTTP process must already run: whatever needs it
is imported when the model is loaded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from contracts.errors import Problem
from contracts.models import VLModelInfo
from contracts.refusal import Refusal
from engines.store.manifest import EngineRefused
from vl_service.backend import (
    Backend,
    ChatWork,
    CheckpointError,
    Deadline,
    DeadlineExceededError,
    Described,
    FeatureBackend,
    Look,
    Looked,
    Replied,
    Work,
    WrongRoleError,
)
from vl_service.embedded import is_embedded, load_embedded
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import use_profiles
from vl_service.qwen.vision.wire import FORMATS
from vl_service.settings import Settings
from vl_service.worker.describe import answer
from vl_service.worker.dialogue import reply
from vl_service.worker.heaps import Heaps
from web.logs import configure_logging
from web.telemetry import configure_tracing
from web.worker.child import Handler, Report, WorkerProgram
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable, WorkCanceled
from web.worker.faults import breaks_the_device, is_out_of_memory, one_line
from web.worker.imports import lasting_imports

_LOOK_S = 0.05  # between two looks at whether anybody still waits
Load = Callable[[Settings], Backend | FeatureBackend]


def load_backend(settings: Settings) -> Backend | FeatureBackend:
    """Load the backend that the settings name; takes seconds to minutes. Raises whatever loading a checkpoint may."""
    if settings.quant != "none" and (settings.remote_url is not None or settings.model == "embedded"):
        raise CheckpointError(f"VL_QUANT={settings.quant} is for a Qwen checkpoint in this process")
    if settings.remote_url is not None:
        from vl_service.remote import load_remote  # httpx, which no other backend needs

        return load_remote(settings)
    folder = settings.models_dir / "vl" if settings.model == "embedded" else Path(settings.model).expanduser()
    is_ours = settings.model == "embedded" or is_embedded(folder)
    if settings.backend == ("qwen" if is_ours else "embedded"):
        found = "a checkpoint" if is_ours else "no checkpoint"
        raise CheckpointError(
            f"VL_BACKEND={settings.backend}: VL_MODEL={settings.model} is {found} in the embedded layout")
    if is_ours:
        if settings.engine not in ("auto", "torch"):
            raise EngineRefused(
                f"VL_ENGINE={settings.engine}: there are no engines of the embedded checkpoint; set auto or torch")
        if settings.role != "all":
            raise CheckpointError(
                f"VL_ROLE={settings.role} is for a Qwen checkpoint; the embedded one is small enough to be whole")
        return load_embedded(folder, settings.threads)
    if settings.role == "vision":
        with lasting_imports():
            from vl_service.qwen.vision.looking import load_vision  # transformers takes seconds more
        return load_vision(settings)
    with lasting_imports():
        from vl_service.qwen.backend import load_qwen

    return load_qwen(settings)


def worker_program(load: Load = load_backend) -> WorkerProgram:
    """What the worker process runs."""

    def opened(settings: Settings) -> tuple[VLModelInfo, Handler]:
        configure_logging("vl_service.worker", settings.log_level)
        configure_tracing("vl_service.worker")
        try:
            use_profiles(settings.profiles_dir)
            backend = load(settings)
        except Exception as error:  # any reason ends up in /readyz; what is not the checkpoint's own may pass
            words = f"the model {settings.model} could not be loaded: {one_line(error)}"
            if isinstance(error, CheckpointError | EngineRefused):
                raise ModelUnavailable(words) from error
            raise ModelNotYetAvailable(words) from error
        return backend.info, partial(_work, backend, None if backend.concurrent else OneAtATime())

    return WorkerProgram(open_model=opened, explain=explain, tidy_up=Heaps().trim)


class OneAtATime:
    """A turn for each call, in the order of asking."""

    def __init__(self) -> None:
        self._calls: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Raises `DeadlineExceededError` where it passes while others have their turn."""
        own = object()
        with self._changed:
            self._calls.append(own)
        try:
            with self._changed:
                while self._calls[0] is not own:
                    deadline.check()
                    self._changed.wait(_LOOK_S)
            yield
        finally:
            with self._changed:
                self._calls.remove(own)
                self._changed.notify_all()


def _work(
    backend: Backend | FeatureBackend, turns: OneAtATime | None, work: Work | Look | ChatWork, report: Report
) -> Described | Looked | Replied:
    def is_canceled() -> bool:
        try:
            report.check()
        except WorkCanceled:
            return True
        return False

    deadline = Deadline(at=work.due, is_canceled=is_canceled)
    try:
        with nullcontext() if turns is None else turns.turn(deadline):
            if isinstance(work, Look):
                return _look(backend, work, deadline)
            if not isinstance(backend, Backend):
                raise WrongRoleError("VL_ROLE=vision serves features alone; ask the service in the language role.")
            if isinstance(work, ChatWork):
                return reply(backend, work, deadline, report)
            return _describe(backend, work, deadline)
    except DeadlineExceededError:
        report.check()
        raise


def _describe(backend: Backend, work: Work, deadline: Deadline) -> Described:
    began = time.monotonic()
    image = None if work.image is None else DecodedImage.of(work.image, max_pixels=work.max_pixels)
    response = answer(backend, image, work.tasks, deadline, work.started)
    return Described(response=response, info=backend.info, seconds=time.monotonic() - began)


def _look(backend: Backend | FeatureBackend, work: Look, deadline: Deadline) -> Looked:
    if not isinstance(backend, FeatureBackend):
        raise WrongRoleError("This service has no vision tower that gives features; ask one with VL_ROLE=vision.")
    began = time.monotonic()
    picture = DecodedImage.of(work.image, FORMATS, judged=False)  # by the language role, who tells of it
    body, cache = backend.features(picture, deadline)
    return Looked(body=body, cache=cache, info=backend.info, seconds=time.monotonic() - began)


def explain(error: Exception) -> Problem:
    """What an exception in a call means to the caller."""
    if isinstance(error, Refusal):
        return error.problem
    if isinstance(error, EngineRefused):
        return _problem(503, "engine_refused", "The engine does not run",
                        f"{str(error)[:1500]}. Build it again, or set VL_ENGINE=auto, and restart the service.")
    if breaks_the_device(error):
        return _problem(503, "unavailable", "The model is being replaced",
                        "The device failed in this call; retry in a moment.", retry_after_s=2)
    if is_out_of_memory(error):
        return _problem(503, "out_of_memory", "Out of memory",
                        "There was too little memory for this call; retry, or set a smaller VL_IMAGE_TOKENS.",
                        retry_after_s=5)
    return _problem(500, "internal_error", "Internal error",
                    "The model failed to answer; the service's log has the cause. Trying again is safe.")


def _problem(status: int, code: str, title: str, detail: str, **more: Any) -> Problem:
    return Problem(status=status, code=code, title=title, detail=detail, **more)
