"""`GET /v1/models`: what this deployment can run."""

import time
from typing import Annotated

from fastapi import APIRouter, Path

from contracts.models import ListedAbsentModel, ListedVideoModel, ListedVLModel, ModelList
from contracts.refusal import Refusal
from gateway.api.access import OpenGateway, TheCaller
from gateway.api.openapi import problems
from gateway.runtime import Gateway
from gateway.services.errors import ServiceError

router = APIRouter(prefix="/v1/models", tags=["models"])

_SINCE = int(time.time())
_FRESH_S = 2.0
Listed = ListedVideoModel | ListedVLModel | ListedAbsentModel


@router.get("", responses=problems(503), summary="What this deployment can run")
async def list_models(_: TheCaller, gateway: OpenGateway) -> ModelList:
    """The video models, the default first, each with every bound that a request must respect and whether it is in
    memory (`state`) and on which devices; then the vision-language models, with their prompt templates; then the video
    models that are `absent`, and why.

    A service that cannot be reached is left out; without either the answer is 503.
    """
    return ModelList(data=await _listed(gateway))


@router.get("/{model_id:path}", responses=problems(404, 503), summary="One model")
async def get_model(
    model_id: Annotated[str, Path(description="The model's `id`; it may have slashes.", max_length=200)], _: TheCaller,
    gateway: OpenGateway,
) -> Listed:
    """The model with its bounds, or why it is absent."""
    models = await _listed(gateway)
    for model in models:
        if model.id == model_id:
            return model
    known = ", ".join(model.id for model in models)
    raise Refusal(
        f"There is no model {model_id!r}; there are: {known}.", status=404, code="model_not_found",
        title="No such model")


async def _listed(gateway: Gateway) -> list[Listed]:
    models: list[Listed] = []
    absent: list[Listed] = []
    unreachable: ServiceError | None = None
    try:
        found = await gateway.catalog.video_models(_FRESH_S)
        models += [ListedVideoModel(**dict(info), created=_SINCE) for info in found]
        absent += [ListedAbsentModel(**dict(model), created=_SINCE) for model in await gateway.catalog.absent_models()]
    except ServiceError as error:
        unreachable = error
    try:
        models += [ListedVLModel(**dict(info), created=_SINCE) for info in await gateway.catalog.vl_models(_FRESH_S)]
    except ServiceError as error:
        unreachable = error
    if not models and unreachable is not None:
        raise unreachable
    return [*models, *absent]
