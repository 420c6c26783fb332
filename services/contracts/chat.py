"""A dialogue, and the inner wire that continues it: `POST /v1/chat` of the vision-language service.

The answer is server-sent events, each a `ChatEvent`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from contracts.describe import Language
from contracts.errors import Problem
from contracts.wire import FrozenModel, ImageBytes, ImageRequest

MAX_TURNS = 64
MAX_CHAT_CHARS = 64_000
"""Of all turns together."""
MAX_CHAT_IMAGES = 4
MAX_REPLY_TOKENS = 4096

Role = Literal["system", "user", "assistant"]
ReplyKind = Literal["chat", "reply", "prompt"]
"""`chat`: the turns alone, as they are; `reply`: in our manner; `prompt`: the video prompt that the dialogue led to."""
Finish = Literal["stop", "length"]


class TextPart(FrozenModel):
    """Words."""

    type: Literal["text"] = "text"
    text: str = Field(max_length=MAX_CHAT_CHARS)


class ImagePart(FrozenModel):
    """The place of the next picture."""

    type: Literal["image"] = "image"


Part = TextPart | ImagePart  # told apart by their fields: on the wire, what is at its default is left out


class Turn(FrozenModel):
    """What one side said."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Its words."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def num_images(self) -> int:
        """How many pictures it shows."""
        return sum(isinstance(part, ImagePart) for part in self.content)


class ChatOptions(FrozenModel):
    """How to reply. Left out, temperature and top_p are the service's own."""

    kind: ReplyKind = "chat"
    language: Language = "en"
    profile: str = Field(default="embedded", max_length=64)
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_new_tokens: int = Field(default=256, ge=1, le=MAX_REPLY_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False, description="0: the likeliest.")
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=4)
    json_schema: dict[str, Any] | None = Field(default=None, description="What the reply is, as JSON.")


class ChatRequest(ImageRequest):
    """A dialogue whose last turn is to be answered; the images stand in its turns in their order."""

    turns: tuple[Turn, ...] = Field(min_length=1, max_length=MAX_TURNS)
    options: ChatOptions = ChatOptions()
    image_0: ImageBytes | None = None
    image_1: ImageBytes | None = None
    image_2: ImageBytes | None = None
    image_3: ImageBytes | None = None

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        if self.turns[-1].role != "user":
            raise ValueError("the last message is the user's: it is the one that is answered")
        if any(turn.num_images for turn in self.turns if turn.role != "user"):
            raise ValueError("pictures stand in messages of the user")
        if self.num_images > MAX_CHAT_IMAGES:
            raise ValueError(f"a dialogue has at most {MAX_CHAT_IMAGES} pictures")
        if sum(len(turn.text) for turn in self.turns) > MAX_CHAT_CHARS:
            raise ValueError(f"a dialogue has at most {MAX_CHAT_CHARS:,} characters")
        if not self.turns[-1].text.strip() and not self.turns[-1].num_images:
            raise ValueError("the last message is empty")
        return self

    @property
    def num_images(self) -> int:
        """For how many pictures there is a place."""
        return sum(turn.num_images for turn in self.turns)

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures, in the order of their places."""
        return tuple(self.images().values())

    def with_pictures(self, pictures: Sequence[bytes]) -> Self:
        """The same with its pictures, one for each place."""
        return self.model_copy(update={f"image_{index}": data for index, data in enumerate(pictures)})


class ChatEnd(FrozenModel):
    """The reply is complete."""

    text: str = Field(description="All of it, by the rules for its kind; a `chat` reply as it came.")
    finish: Finish
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    model: str
    revision: str
    engine: str
    warnings: tuple[str, ...] = ()


class ChatEvent(FrozenModel):
    """One of: the next piece of text; the end; what went wrong after the reply had begun."""

    text: str = ""
    end: ChatEnd | None = None
    error: Problem | None = None
