"""The worker's side of a dialogue: let the model reply, cut where the reply ends, hold it to its kind's rules."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from contracts.chat import MAX_REPLY_TOKENS, ChatEnd, ChatOptions, Turn
from vl_service.backend import Backend, CannotReplyError, ChatWork, Deadline, Piece, Pieces, Replied
from vl_service.images import DecodedImage
from vl_service.prompts.asking import JSON_TOKENS
from vl_service.prompts.polish import clean, in_language, polish_prompt
from vl_service.prompts.profiles import profile_named
from vl_service.prompts.quotes import quoted_parts
from vl_service.prompts.shots import asks_for_move, camera_words, read_shot, say, schema_of


def reply(backend: Backend, work: ChatWork, deadline: Deadline, tell: Callable[[str], None]) -> Replied:
    """Reply, telling each piece of text; a prompt that is filled in field by field, at once when it is said.

    Raises what `tell` and `Backend.chat` raise.
    """
    began, options, info = time.monotonic(), work.options, backend.info
    images = [DecodedImage.of(image) for image in work.images]

    def chat(options: ChatOptions, tell: Callable[[str], None]) -> Piece:
        return _whole(backend.chat(work.turns, images, options, deadline), options.stop, tell)

    written, spent = _filled_in(chat, work, deadline)
    if written is None:
        written = chat(options, tell)
    else:
        tell(written.text)
    assert written.finish is not None
    end = ChatEnd(
        text=_polished(written.text, work.turns, options), finish=written.finish, model=info.id,
        prompt_tokens=written.prompt_tokens, completion_tokens=written.completion_tokens + spent,
        revision=info.revision, engine=backend.info.engine, warnings=written.warnings,
    )
    return Replied(end=end, info=backend.info, seconds=time.monotonic() - began)


def _whole(pieces: Pieces, stop: Sequence[str], tell: Callable[[str], None]) -> Piece:
    """All of the text as one piece, each told as it comes."""
    said: list[str] = []
    last: Piece | None = None
    with closing(pieces):
        for last in until_stop(pieces, stop):
            if last.text:
                said.append(last.text)
                tell(last.text)
    assert last is not None
    return replace(last, text="".join(said))


def _filled_in(
    chat: Callable[[ChatOptions, Callable[[str], None]], Piece], work: ChatWork, deadline: Deadline
) -> tuple[Piece | None, int]:
    """A prompt by its profile's fields, asked for twice at most; None where there is none. Then the tokens spent on it.
    """
    options, spent = work.options, 0
    if options.kind != "prompt" or not profile_named(options.profile).fields:
        return None, 0
    profile = profile_named(options.profile)
    language = profile.language_for(options.language)
    for attempt in range(2):
        try:
            said = chat(options.model_copy(update={
                "json_schema": schema_of(profile.fields, language), "seed": options.seed + attempt,
                "max_new_tokens": min(options.max_new_tokens + JSON_TOKENS, MAX_REPLY_TOKENS)}),
                lambda _: deadline.check())
        except CannotReplyError:  # not in JSON: text is asked for, and what is wrong with that is said then
            return None, spent
        shot = read_shot(said.text)
        text = "" if shot is None else say(
            shot, profile.fields, language, camera_asked=_camera_asked(work.turns), may_invent=profile.invents_camera,
            fixed=profile.fixed_camera and bool(work.images))
        if text and in_language(clean(text), language):
            return replace(said, text=text, finish="stop"), spent
        spent += said.completion_tokens
    return None, spent


def _camera_asked(turns: Sequence[Turn]) -> str:
    """What was said last of the camera."""
    wishes = (camera_words(turn.text) for turn in reversed(turns) if turn.role == "user")
    return next(filter(None, wishes), "")


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
