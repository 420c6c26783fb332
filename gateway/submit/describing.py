"""The bodies that ask about a picture: JSON with its tasks, or a form for people with curl."""

from dataclasses import dataclass
from typing import Self

from pydantic import Field
from starlette.requests import Request

from contracts.describe import DescribeRequest, DescribeTask, Language, Text
from contracts.models import FrozenModel
from gateway.submit.bodies import BodyRefused, body_kind, form_fields, form_picture, read_form, read_limited
from gateway.submit.uploads import decode_text
from gateway.threads import off_loop


class DescribeForm(FrozenModel):
    """The fields of the form beside `image`: caption, prompt and suggestions come back, and the answer if asked."""

    question: Text | None = Field(default=None, description="What you want to know of the picture.")
    user_prompt: Text | None = Field(default=None, description="Your own words, kept in the prompt.")
    instruction: Text | None = Field(default=None, description="How to write the prompt, such as 'dramatic'.")
    language: Language = "en"
    profile: str = Field(default="embedded", max_length=64, description="Prompt style of the video model.")
    seed: int = Field(default=0, ge=0, lt=2**63)

    @property
    def tasks(self) -> list[DescribeTask]:
        """In the order of the answers."""
        asked = [DescribeTask(kind="question", question=self.question)] if self.question else []
        return [
            DescribeTask(kind="caption"),
            DescribeTask(kind="prompt", user_prompt=self.user_prompt, instruction=self.instruction),
            DescribeTask(kind="edit_suggestion"), *asked,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request without its picture, and the picture's bytes (unchecked)."""

    request: DescribeRequest
    image: bytes | None = None

    @classmethod
    def in_form(cls, form: DescribeForm, image: bytes) -> Self:
        """What a form asks."""
        return cls(image=image, request=DescribeRequest(
            tasks=form.tasks, language=form.language, profile=form.profile, seed=form.seed))


async def read_description(request: Request, max_image_bytes: int) -> Asked:
    """Read either encoding of `POST /v1/describe`.

    Raises:
        BodyTooLarge, ImageRefused, BodyRefused: see there.
        pydantic.ValidationError: a field is unknown or out of bounds.
    """
    if body_kind(request) == "form":
        async with read_form(request, max_image_bytes) as form:
            image = await form_picture(form, "image", max_image_bytes)
            if not isinstance(image, bytes):
                raise BodyRefused("image_missing", "Send the picture itself: curl -F image=@cat.jpg")
            return Asked.in_form(DescribeForm.model_validate(form_fields(form, "image")), image)
    body = await read_limited(request)

    def parse() -> Asked:  # megabytes of JSON and base64 take tens of milliseconds
        asked = DescribeRequest.model_validate_json(body)
        image = None if asked.image is None else decode_text(asked.image, max_image_bytes)
        return Asked(request=asked.model_copy(update={"image": None}), image=image)

    return await off_loop(parse)
