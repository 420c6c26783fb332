"""Why a body is not taken."""

from pydantic import ValidationError

from contracts.refusal import Refusal
from web.problems import validation_problem


class BodyTooLarge(Refusal):
    """More bytes than any legal request has; the rest was not read."""

    status, code, title = 413, "body_too_large", "The request is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A request has at most {limit / 2**20:.0f} MiB: send a smaller picture.")


class IntakeFull(Refusal):
    """So many bytes of other requests are on their way that no more fit; nothing was done."""

    status, code, title = 503, "too_much_arrives", "Too much arrives at once"

    def __init__(self) -> None:
        super().__init__(
            "Other requests' pictures take all the room there is: send this one again in 10 s.", retry_after_s=10)


class BodyRefused(Refusal):
    """The body is not one that we take: stable `code`, in words what to send, and the field where it is one's fault."""

    title = "The request is not valid"

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        status = {"unsupported_media_type": 415, "too_many_fields": 413}.get(code, 422)
        super().__init__(detail, status=status, code=code, field=field)


class FieldsRefused(Refusal):
    """Fields that are unknown or out of bounds."""

    status, code, title = 422, "invalid_request", "The request is not valid"

    def __init__(self, cause: ValidationError) -> None:
        problem = validation_problem(cause.errors(include_url=False, include_input=False))
        super().__init__(problem.detail, errors=problem.errors)
