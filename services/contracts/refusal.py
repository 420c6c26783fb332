"""The one kind of exception that every HTTP app turns into a problem."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.errors import FieldProblem, Problem


class Refusal(Exception):
    """Something that is asked for and not done: a kind says its status, code and title, a case its detail.

    Every HTTP app answers it with its `problem`.
    """

    status: int
    code: str
    title: str

    def __init__(
        self, detail: str, *, status: int | None = None, code: str | None = None, title: str | None = None,
        field: str | None = None, errors: "list[FieldProblem] | None" = None, retry_after_s: int | None = None,
        job_id: str | None = None, log: str | None = None,
    ) -> None:
        """`status`, `code` and `title` are the kind's if left out.

        `field` is the one of the body that is at fault; `log` is what the text of the exception says in place of
        `detail`, for ourselves.
        """
        super().__init__(log or detail)
        self.detail = detail
        self.status = status or self.status
        self.code = code or self.code
        self.title = title or self.title
        self.field = field
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.job_id = job_id

    def __str__(self) -> str:
        return str(self.args[0])  # whatever else the kind inherits from

    @property
    def problem(self) -> "Problem":
        """What the caller is told."""
        from contracts.errors import FieldProblem, Problem  # pydantic: 15 MB, for nothing in a process that decodes

        at_fault = [FieldProblem(field=f"body.{self.field}", message=self.detail)] if self.field else None
        return Problem(
            status=self.status, code=self.code, title=self.title, detail=self.detail, job_id=self.job_id,
            retry_after_s=self.retry_after_s, errors=self.errors or at_fault,
        )


class ParameterRefused(Refusal):
    """A parameter that the model cannot serve: stable `code`, the `field`, and in words what would work."""

    status, title = 422, "The request cannot be served"

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message, code=code, field=field)
        self.field = field
