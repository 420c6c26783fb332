"""Tasks → chat messages for a language model, and what it says → answers. User text is fenced: data, never obeyed.

    answers = ask(tasks, write, picture_faults=())         # `write` gives what the model says to each `Request`

A prompt is asked for as JSON where its profile says which fields; what is no such JSON, or in another language, is
asked for once more, and then as plain text.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.chat import ChatOptions, Turn
from vl_service.backend import Answer, Task
from vl_service.images import Fault
from vl_service.prompts.polish import clean, in_language
from vl_service.prompts.profiles import policy, profile_named
from vl_service.prompts.shots import camera_words, read_shot, say, schema_of
from vl_service.prompts.verdicts import SCHEMA as VERDICT
from vl_service.prompts.verdicts import UNREAD, read_verdict

_FENCE = re.compile(r"<\s*/?\s*user\s*>", re.IGNORECASE)
_JSON_TOKENS = 96  # that names of fields and the like take beside the words
_MOST_TOKENS = 1024
_CAPTION_TOKENS = 160  # three long sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One text to be written by a language model."""

    messages: Sequence[dict[str, Any]]
    seed: int
    max_new_tokens: int
    schema: Mapping[str, Any] | None = None
    """That the text is JSON of, where the model can be held to one."""


Write = Callable[[Sequence[Request]], Sequence[str]]


@cache
def _words() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("vl_service.prompts") / "asking.toml").read_text("utf-8"))


def ask(tasks: Sequence[Task], write: Write, *, with_picture: bool, faults: Sequence[Fault] = ()) -> list[Answer]:
    """An answer to each task. Raises what `write` does."""
    answers: dict[int, Answer] = {}
    first: dict[int, Answer] = {}  # as good as nothing else came
    for attempt in range(3):
        left = [index for index, task in enumerate(tasks) if index not in answers and _has_form(task, attempt)]
        if not left:
            continue
        said = write([_request(tasks[index], with_picture, faults, attempt) for index in left])
        for index, text in zip(left, said, strict=True):
            task = tasks[index]
            found = _read(task, text, with_picture) if _wants_json(task, attempt) else Answer(text=text)
            if found is not None and (found.verdict or in_language(clean(found.text), task.language)):
                answers[index] = found
            elif found is not None:
                first.setdefault(index, found)
    return [answers.get(index) or first.get(index, UNREAD) for index in range(len(tasks))]


def _has_form(task: Task, attempt: int) -> bool:
    """Text is asked for twice; JSON too, and then text, which is no verdict."""
    return attempt < 2 or (_wants_json(task, 0) and task.kind != "verdict")


def _wants_json(task: Task, attempt: int) -> bool:
    return task.kind == "verdict" or (task.kind == "prompt" and bool(task.profile.fields) and attempt < 2)


def _read(task: Task, text: str, with_picture: bool) -> Answer | None:
    if task.kind == "verdict":
        return read_verdict(text)
    shot = read_shot(clean(text) if "{" not in text else text)
    if shot is None:
        return None
    profile = task.profile
    said = say(
        shot, profile.fields, task.language, camera_asked=camera_words(task.wishes), may_invent=profile.invents_camera,
        fixed=profile.fixed_camera and with_picture)
    return Answer(text=said, avoid=shot.avoid)


def _request(task: Task, with_picture: bool, faults: Sequence[Fault], attempt: int) -> Request:
    as_json = _wants_json(task, attempt)
    again = attempt > 0
    tokens = min(task.max_new_tokens, _CAPTION_TOKENS) if task.kind == "caption" else task.max_new_tokens
    return Request(
        messages=messages(task, with_picture=with_picture, again=again, as_json=as_json, faults=faults),
        seed=task.seed + attempt, schema=_schema(task) if as_json else None,
        max_new_tokens=min(tokens + _JSON_TOKENS, _MOST_TOKENS) if as_json else tokens)


def _schema(task: Task) -> Mapping[str, Any]:
    return VERDICT if task.kind == "verdict" else schema_of(task.profile.fields, task.language)


def messages(
    task: Task, *, with_picture: bool, again: bool = False, as_json: bool = False, faults: Sequence[Fault] = ()
) -> list[dict[str, Any]]:
    """System and user message; the picture stands before the words, so that its prefix is the same for every task."""
    content: list[dict[str, Any]] = [{"type": "image"}] if with_picture else []
    words = _words()[task.language]
    lines = [*_lines(task, with_picture, as_json), *(words[fault] for fault in faults)]
    if again:
        lines.append(words["again"])
    content.append({"type": "text", "text": "\n".join(lines)})
    system = words["system"].strip()
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


def _lines(task: Task, with_picture: bool, as_json: bool) -> list[str]:
    words = _words()[task.language]
    if task.kind == "question":
        return [words["question"].replace("{question}", _fenced(task.question or ""))]
    if task.kind == "verdict":
        return _judging(task, with_picture)
    if task.kind != "prompt":
        return [words[task.kind]]
    form = "prompt_json" if as_json else "prompt"
    lines = [words[form if with_picture else f"{form}_words"].replace("{guide}", task.profile.guide[task.language])]
    if as_json:
        lines = [_with_fields(lines[0], task)]
    if task.template is not None:
        lines.append(words["template"].replace("{words}", _fenced(task.template)))
    if task.user_prompt is not None:
        form = "user_prompt_json" if as_json else "user_prompt"
        lines.append(words[form].replace("{words}", _fenced(task.user_prompt)))
    if task.instruction is not None:
        lines.append(words["instruction"].replace("{instruction}", _fenced(task.instruction)))
    return lines


def _judging(task: Task, with_picture: bool) -> list[str]:
    words = _words()[task.language]
    wish = "\n".join(_fenced(text) for text in (task.user_prompt, task.instruction) if text)
    lines = [words["verdict" if with_picture else "verdict_words"].replace("{rules}", policy(task.language))]
    return [*lines, words["verdict_wish"].replace("{words}", wish)] if wish else lines


def _with_fields(text: str, task: Task) -> str:
    words, fields = _words()[task.language], task.profile.fields
    named = "\n".join(f"- {name}: {words['fields'][name]}" for name in fields)
    examples = [
        words["example"] + json.dumps({name: value for name, value in dict(example).items() if name in fields},
                                      ensure_ascii=False)
        for example in task.profile.examples]
    return text.replace("{fields}", named).replace("{examples}", "\n".join(examples)).strip()


def _fenced(text: str) -> str:
    # a fence written by the user would close ours
    return _FENCE.sub(" ", text).strip()
