"""Whether a picture and a wish keep to the policy: a model says it as JSON, the reason first."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.describe import Verdict
from vl_service.backend import Answer
from vl_service.prompts.shots import first_object

SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["reason", "verdict"], "additionalProperties": False,
    "properties": {"reason": {"type": "string", "maxLength": 240},
                   "verdict": {"type": "string", "enum": list(get_args(Verdict))}}}
UNREAD = Answer(text="The model gave no verdict that could be read.", verdict="review")


class _Judged(BaseModel):
    model_config = ConfigDict(extra="ignore")

    reason: Annotated[str, Field(max_length=1000)] = ""
    verdict: Verdict


def read_verdict(text: str) -> Answer | None:
    """None where the text is no verdict."""
    try:
        judged = _Judged.model_validate(first_object(text))
    except ValidationError:
        return None
    return Answer(text=judged.reason.strip() or judged.verdict, verdict=judged.verdict)
