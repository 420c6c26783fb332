"""What an exception in a render means to the caller, as a problem. Imports no torch."""

import errno

from contracts.errors import Problem
from contracts.refusal import Refusal
from web.worker.errors import ModelUnavailable
from web.worker.faults import is_out_of_memory, one_line


def explain(error: Exception) -> Problem:
    """Classify `error` for the render that raised it."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # such as VideoWriteFailed's
    if isinstance(error, Refusal):
        return error.problem
    if isinstance(error, ModelUnavailable):
        return Problem(status=503, code="model_unavailable", title="The model is unavailable", detail=str(error))
    if is_out_of_memory(error) or is_out_of_memory(cause):
        return Problem(
            status=500, code="out_of_memory", title="Out of memory",
            detail="The machine has too little memory for this render; use a smaller size or fewer frames. "
            + one_line(error),
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            status=500, code="disk_full", title="Disk full",
            detail="There is no room for the video; free space under STILLMOTION_DATA and render again.",
        )
    return Problem(
        status=500, code="render_failed", title="The render failed",
        detail=f"{one_line(error)}. The log of the video service has the whole cause.",
    )
