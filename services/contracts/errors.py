"""RFC 9457 problem details, the one error body of all three services."""

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One field that was refused: where it is and what to do about it."""

    field: str = Field(description="Path of the field in the request, such as `body.num_frames`.")
    message: str


class Problem(BaseModel):
    """What went wrong, in a stable `code` for programs and a sentence that says what to do for people."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Stable identifier, such as `image_too_small`.")
    job_id: str | None = None
    retry_after_s: int | None = Field(default=None, ge=0, description="Seconds after which a retry makes sense.")
    errors: list[FieldProblem] | None = None
