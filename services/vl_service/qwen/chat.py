"""A dialogue continued by a Qwen-VL checkpoint: read from its beginning each time, written token by token."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from contracts.chat import ChatOptions, Turn
from vl_service.backend import CannotReplyError, Deadline, Piece
from vl_service.images import DecodedImage
from vl_service.prompts.asking import dialogue
from vl_service.qwen.checkpoint import Checkpoint
from vl_service.qwen.fast.slots import Sampling
from vl_service.qwen.fast.writing import Ask, Writer, stop_ids_of
from vl_service.qwen.grammar import Grammars
from vl_service.qwen.vision.features import Features, Vision

_UNFINISHED = "\ufffd"  # what a tokenizer writes for the first bytes of a character


class QwenChat:
    """Replies."""

    def __init__(self, checkpoint: Checkpoint, vision: Vision, writer: Writer) -> None:
        self._checkpoint, self._vision, self._writer = checkpoint, vision, writer
        self.grammars = Grammars(checkpoint.tokenizer, stop_ids_of(checkpoint))

    def reply(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Iterator[Piece]:
        """See `backend.Backend.chat`."""
        grammar = None if options.json_schema is None else self.grammars.of(options.json_schema)
        with torch.inference_mode():
            seen = []
            for image in images:
                deadline.check()
                seen.append(self._vision.features_of(image, deadline))
            ids = chat_ids(self._checkpoint, dialogue(turns, options), seen)
        self._check_length(len(ids), options.max_new_tokens)
        ask = Ask(ids=ids, seed=options.seed, max_new_tokens=options.max_new_tokens, grammar=grammar,
                  stop_repeating=options.kind != "chat")
        text, written = _Text(self._checkpoint.tokenizer), 0
        with closing(self._writer.stream(
                together(seen), ask, deadline, sampling=self._sampling_of(options))) as stream:
            for tokens in stream:
                written += len(tokens)
                if more := text.add(tokens):
                    yield Piece(text=more, prompt_tokens=len(ids), completion_tokens=written)
        yield Piece(
            text=text.rest(), prompt_tokens=len(ids), completion_tokens=written,
            finish="length" if written >= options.max_new_tokens else "stop")

    def _sampling_of(self, options: ChatOptions) -> Sampling:
        own = self._writer.sampling
        if own.greedy or options.temperature == 0:
            return replace(own, greedy=True)
        return replace(
            own, temperature=own.temperature if options.temperature is None else max(options.temperature, 0.01),
            top_p=own.top_p if options.top_p is None else options.top_p)

    def _check_length(self, prompt: int, reply: int) -> None:
        limit = self._checkpoint.model.config.get_text_config().max_position_embeddings
        if prompt + reply > limit:
            raise CannotReplyError(
                f"The dialogue has {prompt} tokens and the reply up to {reply}; {self._checkpoint.id} reads {limit} at "
                "most: begin a new dialogue, send fewer pictures, or ask for fewer tokens.")


def chat_ids(checkpoint: Checkpoint, chat: Sequence[dict[str, Any]], seen: Sequence[Features]) -> list[int]:
    """Chat → token ids, with one image token for every merged patch of each picture in its place."""
    # control tokens that the user typed become plain text: only the template may open a turn or place a picture
    encoded = checkpoint.tokenizer.apply_chat_template(
        list(chat), add_generation_prompt=True, tokenize=True, return_dict=True, sanitize_control_tokens=True)
    ids: list[int] = list(encoded["input_ids"])
    places = [index for index, token in enumerate(ids) if token == checkpoint.image_token_id]
    if len(places) != len(seen):
        raise ValueError(f"the chat template placed {len(places)} pictures, not {len(seen)}")
    for place, picture in reversed(list(zip(places, seen, strict=True))):
        ids[place: place + 1] = [checkpoint.image_token_id] * picture.num_tokens
    return ids


def together(seen: Sequence[Features]) -> Features | None:
    """Pictures that were looked at one by one, as if at once: `grid_thw` has a row for each. None of none."""
    if len(seen) < 2:
        return seen[0] if seen else None
    levels = zip(*(picture.deepstack for picture in seen), strict=True)
    return replace(
        seen[0], embeddings=torch.cat([picture.embeddings for picture in seen]),
        grid_thw=torch.cat([picture.grid_thw for picture in seen]),
        names=tuple(name for picture in seen for name in picture.names),
        deepstack=tuple(torch.cat(level) for level in levels))


class _Text:
    """Token ids → text, as far as its characters are whole. Decodes only the tokens since the last whole word."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = 0

    def add(self, tokens: Sequence[int]) -> str:
        """What of the text is new and certain."""
        self._ids += tokens
        text = self._decoded()
        if text.endswith(_UNFINISHED):
            return ""
        new, self._told = text[self._told:], len(text)
        if text.endswith("\n") and len(self._ids) > 64:  # a new line depends on nothing before it
            self._ids, self._told = [], 0
        return new

    def rest(self) -> str:
        """What was held back."""
        return self._decoded()[self._told:]

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
