"""The id of the request, or of the job, that a task works for."""

from wire.calls import current_call


def current_request_id() -> str | None:
    """On the caller's answer, in the logs, on the job and on every internal call."""
    call = current_call()
    return None if call is None else call.request_id
