"""The bodies that ask about a picture: JSON with its tasks, or a form for people with curl."""

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ConfigDict, Field
from starlette.requests import Request

from contracts.chat import ChatRequest
from contracts.describe import (
    MAX_IMAGE_BASE64_CHARS,
    MAX_TASKS,
    MAX_TEMPLATE_CHARS,
    DescribeRequest,
    DescribeTask,
    Language,
    Text,
)
from contracts.models import FrozenModel
from contracts.openai.chat import ChatCompletionRequest, ConversedRequest, Message, picture_addresses
from gateway.submit.bodies import Form, form_fields, form_picture, read_body
from gateway.submit.fields import BodyRefused
from gateway.submit.intake import Intake
from gateway.submit.picture_text import picture_text


class DescribeForm(FrozenModel):
    """The fields of the form beside `image`: caption, prompt and suggestions come back, and the answer if asked."""

    question: Text | None = Field(default=None, description="What you want to know of the picture.")
    user_prompt: Text | None = Field(default=None, description="Your own words, kept in the prompt.")
    instruction: Text | None = Field(default=None, description="How to write the prompt, such as 'dramatic'.")
    template: str | None = Field(
        default=None, min_length=1, max_length=MAX_TEMPLATE_CHARS,
        description="A pattern of the library for the prompt, by its name.")
    language: Language = "en"
    profile: str = Field(default="embedded", max_length=64, description="Prompt style of the video model.")
    seed: int = Field(default=0, ge=0, lt=2**63)

    @property
    def tasks(self) -> list[DescribeTask]:
        """In the order of the answers."""
        asked = [DescribeTask(kind="question", question=self.question)] if self.question else []
        return [
            DescribeTask(kind="caption"),
            DescribeTask(kind="prompt", user_prompt=self.user_prompt, instruction=self.instruction,
                         template=self.template),
            DescribeTask(kind="edit_suggestion"), *asked,
        ]


class DescribeBody(DescribeRequest):
    """A picture (or none, to enhance words alone) and up to 8 tasks answered in order."""

    model_config = ConfigDict(title="DescribeRequest")

    tasks: list[DescribeTask] = Field(min_length=1, max_length=MAX_TASKS)
    image: str | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - text outside, bytes inside
        default=None, max_length=MAX_IMAGE_BASE64_CHARS, description="Its https address, a data URI, or base64."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request without its picture, and the picture: its bytes (unchecked) or its address."""

    request: DescribeRequest
    image: bytes | str | None = None

    @classmethod
    def in_form(cls, form: DescribeForm, image: bytes) -> Self:
        """What a form asks."""
        return cls(image=image, request=DescribeRequest(
            tasks=form.tasks, language=form.language, profile=form.profile, seed=form.seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDialogue:
    """The next message of a dialogue, and the pictures in it: bytes (unchecked) or addresses, in their order."""

    request: ConversedRequest
    pictures: tuple[bytes | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCompletion:
    """What OpenAI's SDK asks: of the model, and the pictures, as above."""

    request: ChatCompletionRequest
    chat: ChatRequest
    pictures: tuple[bytes | str, ...]


def read_completion(request: Request, intake: Intake) -> AbstractAsyncContextManager[AskedCompletion]:
    """Read the body of `POST /v1/chat/completions`; raises as `read_description`."""

    def from_json(fields: dict[str, Any]) -> AskedCompletion:
        asked = ChatCompletionRequest.model_validate(fields)
        return AskedCompletion(
            request=asked, chat=asked.asked(seed=secrets.randbelow(2**31)),
            pictures=_pictures(asked.messages, intake.max_image_bytes))

    def from_form(_: Form) -> AskedCompletion:
        raise BodyRefused("unsupported_media_type", "Send application/json.")

    return read_body(request, intake, from_form, from_json)


def _pictures(messages: Sequence[Message], max_bytes: int) -> tuple[bytes | str, ...]:
    found = [picture_text(address, max_bytes) for address in picture_addresses(messages)]
    return tuple(picture for picture in found if picture is not None)


def read_description(request: Request, intake: Intake) -> AbstractAsyncContextManager[Asked | AskedDialogue]:
    """Read any encoding of `POST /v1/describe`; what was read counts as on its way in until the block ends.

    Raises:
        BodyTooLarge, IntakeFull, DiskFull, ImageRefused, BodyRefused, FieldsRefused: see there.
    """
    limit = intake.max_image_bytes

    def from_form(form: Form) -> Asked | AskedDialogue:
        image = form_picture(form, "image", limit)
        if not isinstance(image, bytes):
            raise BodyRefused("image_missing", "Send the picture itself: curl -F image=@cat.jpg", "image")
        return Asked.in_form(DescribeForm.model_validate(form_fields(form, "image")), image)

    def from_json(fields: dict[str, Any]) -> Asked | AskedDialogue:
        if "messages" in fields:
            dialogue = ConversedRequest.model_validate(fields)
            return AskedDialogue(request=dialogue, pictures=_pictures(dialogue.messages, limit))
        asked = DescribeBody.model_validate(fields)
        image = picture_text(asked.image, limit)
        return Asked(request=DescribeRequest.model_validate(dict(asked) | {"image": None}), image=image)

    return read_body(request, intake, from_form, from_json)
