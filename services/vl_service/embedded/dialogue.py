"""A small dialogue by what the demo model can do: answer one question about one picture, and join a user's wishes."""

from collections.abc import Sequence

from contracts.chat import ChatOptions, Turn
from contracts.describe import MAX_TEXT_CHARS
from vl_service.backend import Answer, Backend, CannotReplyError, Deadline, Piece, Pieces, Task
from vl_service.embedded.model.tokens import Tokenizer
from vl_service.images import DecodedImage
from vl_service.prompts.polish import sentences
from vl_service.prompts.profiles import profile_named

_LAST_ALONE = "The embedded demo model reads the last message alone: it does not follow a dialogue."
_LAST_PICTURE = "The embedded demo model looks at the last picture alone."
_FOLLOW_ON = "set VL_MODEL to a Qwen-VL checkpoint for a dialogue"


def reply(
    backend: Backend, tokenizer: Tokenizer, turns: Sequence[Turn], images: Sequence[DecodedImage],
    options: ChatOptions, deadline: Deadline,
) -> Pieces:
    """See `backend.Backend.chat`: the answer to the last message as a question, or a prompt with all wishes in it."""
    if options.json_schema is not None:
        raise CannotReplyError(
            "The embedded demo model cannot hold to `response_format`: leave it out, or set VL_MODEL to a Qwen-VL "
            "checkpoint.")
    task = _prompt_task(turns, images, options) if options.kind == "prompt" else _question(turns, images, options)
    answer: Answer = backend.describe(images[-1] if images else None, [task], deadline).answers[0]
    asked = task.user_prompt or task.question or ""
    warnings = list(answer.warnings)
    if options.kind != "prompt" and len(turns) > 1:
        warnings.append(_LAST_ALONE)
    if len(images) > 1:
        warnings.append(_LAST_PICTURE)
    yield Piece(
        text=answer.text, prompt_tokens=len(tokenizer.encode(asked)),
        completion_tokens=len(tokenizer.encode(answer.text)), finish="stop", warnings=tuple(warnings))


def _question(turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions) -> Task:
    question = turns[-1].text.strip()
    if not images:
        raise CannotReplyError(
            f"The embedded demo model answers questions about a picture and nothing else: send one, or {_FOLLOW_ON}.")
    if not question:
        raise CannotReplyError("The embedded demo model needs a question beside the picture.")
    if len(question) > MAX_TEXT_CHARS:
        raise CannotReplyError(
            f"The embedded demo model takes questions of at most {MAX_TEXT_CHARS} characters; {_FOLLOW_ON}.")
    return Task(
        kind="question", language=options.language, profile=profile_named(options.profile), seed=options.seed,
        max_new_tokens=options.max_new_tokens, question=question)


def _prompt_task(turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions) -> Task:
    profile = profile_named(options.profile)
    wishes = [
        wish for turn in turns if turn.role == "user" for wish in sentences(turn.text) if wish[-1] not in "?？"]
    if not wishes and not images:
        raise CannotReplyError("There is neither a picture nor a wish in this dialogue to write a prompt from.")
    words = " ".join(wish if wish[-1] in ".!。！" else f"{wish}." for wish in wishes)
    return Task(
        kind="prompt", language=profile.language_for(options.language), profile=profile, seed=options.seed,
        max_new_tokens=options.max_new_tokens, user_prompt=words[:MAX_TEXT_CHARS] or None)
