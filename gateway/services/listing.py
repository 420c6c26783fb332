"""The models of every address of a service as one list."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from contracts.models import AbsentModel, VideoModelInfo, VLModelInfo
from gateway.services.errors import ServiceError
from gateway.services.pool import Client, Pool

Model = TypeVar("Model", VideoModelInfo | AbsentModel, VLModelInfo)
_BEST_FIRST = ("loaded", "loadable", "absent")


async def every_model(pool: Pool[Client], ask: Callable[[Client], Awaitable[list[Model]]]) -> list[Model]:
    """The models of all addresses that answer, each once, as the address says that has it readiest; notes with each
    address which ones it runs.

    Raises:
        ServiceError: no address answers.
    """
    answers = await asyncio.gather(*(ask(member.client) for member in pool.members), return_exceptions=True)
    found: dict[str, Model] = {}
    problem: ServiceError | None = None
    for member, answer in zip(pool.members, answers, strict=True):
        if isinstance(answer, ServiceError):
            problem = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            member.models = frozenset(model.id for model in answer if _state(model) != "absent")
            member.loaded = frozenset(model.id for model in answer if _state(model) == "loaded")
            for model in answer:
                known = found.setdefault(model.id, model)
                if _BEST_FIRST.index(_state(model)) < _BEST_FIRST.index(_state(known)):
                    found[model.id] = model  # at the place of the other
    if not found and problem is not None:
        raise problem
    return list(found.values())


def _state(model: VideoModelInfo | AbsentModel | VLModelInfo) -> str:
    return "loaded" if isinstance(model, VLModelInfo) else model.state
