"""How loading a model, and asking a worker for work, can end without a result."""

from typing import Literal

from contracts.errors import Problem
from contracts.refusal import Refusal

StopReason = Literal["canceled", "deadline"]


class NotReady(Exception):
    """No worker can take work now; the message says why, `retry_after_s` when a worker may be there."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class WorkFailed(Refusal):
    """The work raised; its worker lives on or is replaced. `problem` is what the worker said."""

    def __init__(self, told: Problem) -> None:
        super().__init__(
            told.detail, status=told.status, code=told.code, title=told.title, errors=told.errors,
            retry_after_s=told.retry_after_s)


class WorkStopped(Exception):
    """The work was canceled, or took too long."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


class WorkerDied(Exception):
    """The worker process has ended without being asked to; the message names the signal or the exit status."""


class WorkCanceled(Exception):
    """Raised by a `Report` to stop the work."""


class DeviceBroken(RuntimeError):
    """What this process computes with is of no more use; only a new process gets a working one."""


class ModelUnavailable(Exception):
    """The model cannot be loaded, and trying again changes nothing; the message says what to do."""


class ModelNotYetAvailable(ModelUnavailable):
    """The model cannot be loaded now; the next attempt may succeed with nothing changed."""


class NotLoaded(Exception):
    """A worker that never became ready; `may_pass`: the next may."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.may_pass = may_pass
