"""What an exception in a render means: a problem for the caller, and whether the worker can go on. Imports no torch."""

import errno
from dataclasses import dataclass

from contracts.errors import FieldProblem, Problem
from video_service.catalog import RequestRefused
from video_service.picture import PictureUnreadable

# torch's CPU allocator raises a plain RuntimeError; CUDA libraries word it in their own ways.
_MEMORY_WORDS = ("defaultcpuallocator: can't allocate memory", "out of memory", "_alloc_failed", "not enough memory")
_MEMORY_TYPES = frozenset({"OutOfMemoryError"})
_MAX_DETAIL_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed render: what to tell, and whether this process must end."""

    problem: Problem
    fatal: bool


def explain(error: Exception) -> Failure:
    """Classify `error` for the render that raised it."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # such as VideoWriteFailed's
    if isinstance(error, RequestRefused | PictureUnreadable):
        problem = refusal(error)
    elif is_out_of_memory(error) or is_out_of_memory(cause):
        problem = Problem(
            status=500, code="out_of_memory", title="Out of memory",
            detail="The machine has too little memory for this render; use a smaller size or fewer frames. "
            + _one_line(error),
        )
    elif isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        problem = Problem(
            status=500, code="disk_full", title="Disk full",
            detail="There is no room for the video; free space under STILLMOTION_DATA and render again.",
        )
    else:
        problem = Problem(
            status=500, code="render_failed", title="The render failed",
            detail=f"{_one_line(error)}. The log of the video service has the whole cause.",
        )
    return Failure(problem=problem, fatal=_breaks_the_device(error))


def refusal(error: RequestRefused | PictureUnreadable) -> Problem:
    """Why the model cannot serve a request: the same answer at the door and in the worker."""
    if isinstance(error, RequestRefused):
        code, field, message = "invalid_request", error.field, error.message
    else:
        code, field, message = "unreadable_image", "image", str(error)
    return Problem(
        status=422, code=code, title="The model cannot serve this request", detail=str(error),
        errors=[FieldProblem(field=f"body.{field}", message=message)],
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error` says that memory was short, of the machine or of the device."""
    if isinstance(error, MemoryError) or type(error).__name__ in _MEMORY_TYPES:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def _breaks_the_device(error: Exception) -> bool:
    # After such an error every later CUDA call of the process fails: only a new process gets a working context.
    return isinstance(error, RuntimeError) and "cuda error" in str(error).lower() and not is_out_of_memory(error)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:_MAX_DETAIL_CHARS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
