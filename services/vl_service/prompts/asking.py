"""A task → the chat messages for a language model. User text is fenced: data, never an instruction."""

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.chat import ChatOptions, Turn
from vl_service.backend import Task
from vl_service.prompts.profiles import profile_named

_FENCE = re.compile(r"<\s*/?\s*user\s*>", re.IGNORECASE)


@cache
def _words() -> dict[str, dict[str, str]]:
    return tomllib.loads((files("vl_service.prompts") / "asking.toml").read_text("utf-8"))


def messages(task: Task, *, with_picture: bool, again: bool = False) -> list[dict[str, Any]]:
    """System and user message; the picture stands before the words, so that its prefix is the same for every task."""
    content: list[dict[str, Any]] = [{"type": "image"}] if with_picture else []
    content.append({"type": "text", "text": _request(task, with_picture, again)})
    system = _words()[task.language]["system"].strip()
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, {"role": "user", "content": content}]


def dialogue(turns: Sequence[Turn], options: ChatOptions) -> list[dict[str, Any]]:
    """Turns → chat messages: as they are, or, to reply in our manner or write a prompt, under our own system text."""
    said = [{"role": turn.role, "content": [part.model_dump() for part in turn.content]} for turn in turns]
    if options.kind == "chat":
        return said
    profile = profile_named(options.profile)
    language = profile.language_for(options.language) if options.kind == "prompt" else options.language
    words = _words()[language]
    if options.kind == "prompt":
        request = words["dialogue_prompt"].replace("{guide}", profile.guide[language])
        said[-1]["content"].append({"type": "text", "text": f"\n\n{request}"})
    return [{"role": "system", "content": [{"type": "text", "text": words["dialogue"].strip()}]}, *said]


def _request(task: Task, with_picture: bool, again: bool) -> str:
    words = _words()[task.language]
    lines: list[str] = []
    if task.kind == "prompt":
        key = "prompt" if with_picture else "prompt_words"
        lines.append(words[key].replace("{guide}", task.profile.guide[task.language]))
        if task.user_prompt is not None:
            lines.append(words["user_prompt"].replace("{words}", _fenced(task.user_prompt)))
        if task.instruction is not None:
            lines.append(words["instruction"].replace("{instruction}", _fenced(task.instruction)))
    elif task.kind == "question":
        lines.append(words["question"].replace("{question}", _fenced(task.question or "")))
    else:
        lines.append(words[task.kind])
    if again:
        lines.append(words["again"])
    return "\n".join(lines)


def _fenced(text: str) -> str:
    # a fence written by the user would close ours
    return _FENCE.sub(" ", text).strip()
