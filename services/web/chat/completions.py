"""A reply in OpenAI's words: whole, or as the chunks that its SDK reads."""

import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts.chat import ChatEnd
from contracts.errors import Problem
from contracts.openai.chat import ChatCompletion, Choice, CompletionMessage, Usage
from contracts.refusal import Refusal
from web.chat.openai_errors import openai_error

log = logging.getLogger(__name__)

T = TypeVar("T")
Reply = AsyncGenerator[str | ChatEnd]
"""Pieces of text, then the end."""


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The head of every part of one answer."""

    model: str
    id: str = field(default_factory=_new_id)
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, reply: Reply) -> ChatCompletion:
        """The answer in one piece."""
        end = await end_of(reply)
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, usage=usage_of(end), system_fingerprint=end.revision,
            choices=[Choice(message=CompletionMessage(content=end.text), finish_reason=end.finish)],
        )

    async def chunks(self, reply: Reply, *, include_usage: bool) -> AsyncGenerator[bytes]:
        """Server-sent events; what goes wrong in their middle is one that the SDK raises."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async with aclosing(reply):
                async for piece in reply:
                    if isinstance(piece, str):
                        yield self._chunk({"content": piece})
                        continue
                    yield self._chunk({}, finish=piece.finish)
                    if include_usage:
                        yield self._event([], usage=usage_of(piece).model_dump())
            yield b"data: [DONE]\n\n"
        except Exception as error:  # the status has been sent: this is the place to say it
            yield _data(openai_error(explained(error)).model_dump())

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return _data({"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
                      "choices": choices, **more})


def usage_of(*ends: ChatEnd) -> Usage:
    """Tokens of one reply, or of several together."""
    prompt, written = sum(end.prompt_tokens for end in ends), sum(end.completion_tokens for end in ends)
    return Usage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)


def explained(error: Exception) -> Problem:
    """What the caller is told of an error after the answer began."""
    if isinstance(error, Refusal):
        return error.problem
    log.exception("an answer broke off", exc_info=error)
    return Problem(
        status=500, code="internal_error", title="Internal error",
        detail="The server failed to answer; its log has the cause. Trying again is safe.")


async def begun(pieces: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The same once its first piece is there: what goes wrong before that is raised here."""
    first = await anext(pieces)

    async def whole() -> AsyncGenerator[T]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return whole()


async def end_of(reply: Reply) -> ChatEnd:
    """The end of a reply whose pieces nobody waits for."""
    async with aclosing(reply):
        async for piece in reply:
            if isinstance(piece, ChatEnd):
                return piece
    raise EOFError("the reply has no end")


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
