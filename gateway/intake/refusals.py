"""Why a body is not taken."""

from pydantic import ValidationError


class BodyTooLarge(Exception):
    """More bytes than any legal request has; the rest was not read."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request is larger than {limit} bytes.")
        self.limit = limit


class IntakeFull(Exception):
    """So many bytes of other requests are on their way that no more fit; nothing was done."""


class BodyRefused(ValueError):
    """The body is not one that we take: stable `code`, in words what to send, and the field where it is one's fault."""

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field


class FieldsRefused(Exception):
    """Fields that are unknown or out of bounds."""

    def __init__(self, cause: ValidationError) -> None:
        super().__init__(str(cause.title))
        self.cause = cause
