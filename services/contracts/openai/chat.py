"""OpenAI's chat completions as its SDK writes and reads them, and our dialogues, whose messages have the same shape."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.chat import (
    MAX_CHAT_CHARS,
    MAX_REPLY_TOKENS,
    MAX_TURNS,
    ChatOptions,
    ChatRequest,
    Finish,
    ImagePart,
    Role,
    TextPart,
    Turn,
)
from contracts.describe import MAX_IMAGE_BASE64_CHARS, Language
from contracts.models import FrozenModel

_REPLY_TOKENS = 512  # where the caller names no bound


class ImageUrl(FrozenModel):
    """A picture by its address."""

    url: str = Field(
        min_length=1, max_length=MAX_IMAGE_BASE64_CHARS,
        description="A data URI; or an https URL, where this server fetches from its host.")
    detail: Literal["auto", "low", "high"] | None = Field(default=None, description="Taken, and makes no difference.")


class ImageUrlPart(FrozenModel):
    """A picture within a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(FrozenModel):
    """What one side said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHAT_CHARS)] | Annotated[
        list[Annotated[TextPart | ImageUrlPart, Field(discriminator="type")]], Field(min_length=1, max_length=32)]
    name: str | None = Field(default=None, max_length=64, description="Taken, and makes no difference.")


class StreamOptions(FrozenModel):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = Field(default=None, description="Taken, and makes no difference.")


class JsonSchema(FrozenModel):
    """A named JSON schema."""

    name: str = Field(max_length=64)
    description: str | None = Field(default=None, max_length=1000)
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(FrozenModel):
    """What the reply is."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` goes with the type json_schema, and with no other")
        return self

    @property
    def as_schema(self) -> dict[str, Any] | None:
        """The schema of the reply; None where it is text."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


_Ignored = Any
_NO_DIFFERENCE = "Taken, and makes no difference."


class ChatCompletionRequest(FrozenModel):
    """Body of `POST /v1/chat/completions`. What is not done here is refused where it would change the answer."""

    model: str = Field(max_length=200, description="The vision-language model's id in `GET /v1/models`.")
    messages: list[Message] = Field(min_length=1, max_length=MAX_TURNS)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_REPLY_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_REPLY_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: float | None = Field(default=None, ge=0, le=0, description="Only 0 is served.")
    frequency_penalty: float | None = Field(default=None, ge=0, le=0, description="Only 0 is served.")
    tools: list[Any] | None = Field(default=None, max_length=0, description="None are called here.")
    tool_choice: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    user: str | None = Field(default=None, max_length=512, description=_NO_DIFFERENCE)
    metadata: dict[str, str] | None = Field(default=None, description=_NO_DIFFERENCE)
    store: bool | None = Field(default=None, description="Nothing is stored.")
    service_tier: str | None = Field(default=None, max_length=64, description=_NO_DIFFERENCE)
    parallel_tool_calls: bool | None = Field(default=None, description=_NO_DIFFERENCE)
    reasoning_effort: str | None = Field(default=None, max_length=64, description=_NO_DIFFERENCE)
    verbosity: str | None = Field(default=None, max_length=64, description=_NO_DIFFERENCE)
    safety_identifier: str | None = Field(default=None, max_length=512, description=_NO_DIFFERENCE)
    prompt_cache_key: str | None = Field(default=None, max_length=512, description=_NO_DIFFERENCE)

    def asked(self, seed: int) -> ChatRequest:
        """What is asked of the model, with `seed` where the caller names none. Raises pydantic's `ValidationError`."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return ChatRequest(turns=turns_of(self.messages), options=ChatOptions(
            seed=seed if self.seed is None else self.seed % 2**63,
            max_new_tokens=self.max_completion_tokens or self.max_tokens or _REPLY_TOKENS,
            temperature=self.temperature, top_p=self.top_p, stop=tuple(stop),
            json_schema=self.response_format.as_schema if self.response_format else None,
        ))


def turns_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """The messages with places for their pictures."""
    return tuple(
        Turn(role="system" if message.role == "developer" else message.role, content=tuple(
            part if isinstance(part, TextPart) else ImagePart() for part in _parts(message)))
        for message in messages
    )


def picture_addresses(messages: Sequence[Message]) -> list[str]:
    """The pictures of all messages, in their order."""
    return [part.image_url.url for message in messages for part in _parts(message) if isinstance(part, ImageUrlPart)]


def _parts(message: Message) -> Sequence[TextPart | ImageUrlPart]:
    return [TextPart(text=message.content)] if isinstance(message.content, str) else message.content


class DialogueTask(FrozenModel):
    """What is to come of a dialogue: a reply to its last message, or the video prompt that it led to."""

    kind: Literal["reply", "prompt"]


class DialogueRequest(FrozenModel):
    """Body of `POST /v1/describe` with `messages`: a dialogue about pictures, or about none."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_TURNS)
    tasks: list[DialogueTask] = Field(default=[DialogueTask(kind="reply")], min_length=1, max_length=2)
    stream: bool = Field(default=False, description="Answer with server-sent events, word by word.")
    language: Language = "en"
    profile: str = Field(default="embedded", max_length=64, description="Prompt style of the video model.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_new_tokens: int = Field(default=256, ge=1, le=1024, description="Per task.")

    @model_validator(mode="after")
    def _speaks_for_itself(self) -> Self:
        if any(message.role in ("system", "developer") for message in self.messages):
            raise ValueError("a dialogue has messages of `user` and `assistant`; the rest is said by `tasks`, "
                             "`language` and `profile`")
        return self


class ConversedRequest(DialogueRequest):
    """A dialogue whose beginning may be kept here."""

    conversation: str | None = Field(
        default=None, min_length=1, max_length=64,
        description="Of an earlier answer: `messages` are then the new ones alone.")
    store: bool = Field(default=True, description="Keep the dialogue, so that it goes on by its `conversation`.")


class DialogueResult(FrozenModel):
    """What came of one task."""

    kind: Literal["reply", "prompt"]
    text: str
    warnings: list[str] = Field(default_factory=list, exclude_if=lambda warnings: not warnings)


class Usage(BaseModel):
    """Tokens read and written; a picture counts with its vision tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class DialogueResponse(BaseModel):
    """What came of the tasks, in their order."""

    model_config = ConfigDict(extra="forbid")

    results: list[DialogueResult]
    model: str
    revision: str
    engine: str
    seconds: float = Field(ge=0)
    usage: Usage
    conversation: str | None = Field(
        default=None, exclude_if=lambda value: value is None,
        description="Goes on under this id: send it as `conversation` with the next message alone.")


class SaidMessage(BaseModel):
    """One message of a conversation."""

    role: Role
    text: str
    pictures: int = Field(description="How many it showed.")


class ConversationView(BaseModel):
    """A conversation as it is kept."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: datetime
    used_at: datetime
    messages: list[SaidMessage]
    prompt: str | None = Field(default=None, description="The last one that was written in it.")
    job_id: str | None = Field(default=None, description="The last video that was made of it.")


class ConversationDeleted(BaseModel):
    """The conversation and its pictures are gone."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class CompletionMessage(BaseModel):
    """The reply."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one reply."""

    index: Literal[0] = 0
    message: CompletionMessage
    logprobs: None = None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str = Field(description="The model's revision.")
