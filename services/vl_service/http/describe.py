"""`POST /v1/describe`: which tasks a request asks for, resolved, and what the model says to them."""

import json
import logging
import time
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from pydantic import ValidationError

from contracts.describe import DescribeRequest, DescribeResponse, DescribeTask
from contracts.openai.chat import DialogueRequest, DialogueResponse
from contracts.refusal import Refusal
from vl_service.backend import Task
from vl_service.http.dialogue import answer_dialogue
from vl_service.http.metrics import VLMetrics
from vl_service.model import Model
from vl_service.prompts.profiles import Profile, profile_named, template_named
from web.parts import in_body, sent

log = logging.getLogger(__name__)

_one_picture = sent(DescribeRequest)


class NothingToDescribeError(Refusal):
    """The tasks need an image or words that the request does not have; the message says which."""

    status, code, title = 422, "nothing_to_describe", "Nothing to describe"


def add_describe_route(app: FastAPI, model: Model, metrics: VLMetrics) -> None:
    """Add it to the app."""

    @app.post("/v1/describe", response_model=DescribeResponse | DialogueResponse)
    async def describe(
        request: Annotated[DescribeRequest | DialogueRequest, Depends(_asked)], call: Request
    ) -> DescribeResponse | Response:
        """Caption, prompt, suggestions and answers about a picture, several per call; or a dialogue, by `messages`."""
        if isinstance(request, DialogueRequest):
            return await answer_dialogue(model, request, call)
        started = time.monotonic()
        tasks = resolve_tasks(request)
        answer = await model.answer(request.image, tasks, started, max_pixels=request.max_pixels)
        metrics.described(answer.seconds)
        metrics.looked(answer.cache)
        log.info("described", extra={"tasks": [task.kind for task in request.tasks], "seconds": answer.seconds})
        return answer


async def _asked(request: Request) -> DescribeRequest | DialogueRequest:
    """The body of `/v1/describe`, of either kind. Raises `RequestValidationError`."""
    if request.headers.get("content-type", "").startswith("application/json") and _has_messages(await request.body()):
        try:
            return DialogueRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise in_body(error) from error
    return await _one_picture(request)


def _has_messages(body: bytes) -> bool:
    try:
        return b'"messages"' in body and "messages" in json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return False


def resolve_tasks(request: DescribeRequest) -> list[Task]:
    """Tasks with their profile and the language to answer in; refuses what cannot be answered."""
    profile = profile_named(request.profile)
    for task in request.tasks:
        if request.image is None and task.kind not in ("prompt", "verdict"):
            raise NothingToDescribeError(
                f"The task `{task.kind}` needs `image`; only `prompt` and `verdict` work from words alone.")
        if request.image is None and task.user_prompt is None:
            raise NothingToDescribeError(f"A `{task.kind}` task needs `image`, `user_prompt` or both.")
    return [_resolve(task, request, profile) for task in request.tasks]


def _resolve(task: DescribeTask, request: DescribeRequest, profile: Profile) -> Task:
    language = profile.language_for(request.language) if task.kind == "prompt" else request.language
    return Task(
        kind=task.kind, language=language, profile=profile, seed=request.seed, max_new_tokens=request.max_new_tokens,
        question=task.question, user_prompt=task.user_prompt, instruction=task.instruction,
        template=None if task.template is None else template_named(task.template, language),
    )
