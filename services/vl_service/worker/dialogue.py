"""The worker's side of a dialogue: let the model reply, cut where the reply ends, hold it to its kind's rules."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from contracts.chat import ChatEnd, ChatOptions, Turn
from vl_service.backend import Backend, ChatWork, Deadline, Piece, Replied
from vl_service.images import DecodedImage
from vl_service.prompts.polish import clean, polish_prompt
from vl_service.prompts.profiles import profile_named
from vl_service.prompts.quotes import quoted_parts
from vl_service.prompts.shots import asks_for_move


def reply(backend: Backend, work: ChatWork, deadline: Deadline, tell: Callable[[str], None]) -> Replied:
    """Reply, telling each piece of text. Raises what `tell` and `Backend.chat` raise."""
    began, options = time.monotonic(), work.options
    images = [DecodedImage.of(image) for image in work.images]
    said: list[str] = []
    last: Piece | None = None
    with closing(backend.chat(work.turns, images, options, deadline)) as pieces:  # type: ignore[type-var]
        for last in until_stop(pieces, options.stop):
            if last.text:
                said.append(last.text)
                tell(last.text)
    assert last is not None
    assert last.finish is not None
    info = backend.info
    end = ChatEnd(
        text=_polished("".join(said), work.turns, options), finish=last.finish, model=info.id,
        prompt_tokens=last.prompt_tokens, completion_tokens=last.completion_tokens, revision=info.revision,
        engine=info.engine, warnings=last.warnings,
    )
    return Replied(end=end, info=info, seconds=time.monotonic() - began)


def until_stop(pieces: Iterator[Piece], stops: Sequence[str]) -> Iterator[Piece]:
    """The pieces up to the first of `stops`, which is left out; what may be the beginning of one is held back."""
    held = ""
    for piece in pieces:
        held += piece.text
        at = min((found for found in map(held.find, stops) if found >= 0), default=None)
        if at is not None:
            yield replace(piece, text=held[:at], finish="stop")
            return
        keep = 0 if piece.finish else max((_begun(held, stop) for stop in stops), default=0)
        ready, held = held[:len(held) - keep], held[len(held) - keep:]
        if ready or piece.finish:
            yield replace(piece, text=ready)


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text are the first ones of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def _polished(text: str, turns: Sequence[Turn], options: ChatOptions) -> str:
    if options.kind == "chat":
        return text
    if options.kind == "reply":
        return clean(text)
    profile = profile_named(options.profile)
    language = profile.language_for(options.language)
    asked = [turn.text for turn in turns if turn.role == "user"]
    # What the user put in quotation marks is to be shown in the video: it survives, whichever turn it stood in.
    quoted = [part for words in asked for part in quoted_parts(words) if part in text]
    return polish_prompt(
        text, language=language, limit=profile.limit(language), user_prompt=" ".join(quoted) or None,
        camera=profile.invents_camera or asks_for_move(*asked))
