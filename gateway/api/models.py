"""`GET /v1/models`: what this deployment can run."""

from fastapi import APIRouter

from contracts.models import ModelList, VideoModelInfo, VLModelInfo
from gateway.api.access import OpenGateway, TheCaller
from gateway.api.openapi import problems
from gateway.services.clients import ServiceError

router = APIRouter(tags=["models"])


@router.get("/v1/models", responses=problems(503), summary="What this deployment can run")
async def list_models(_: TheCaller, gateway: OpenGateway) -> ModelList:
    """The video models, each with every bound that a request must respect, then the vision-language models.

    A service that cannot be reached is left out; without either the answer is 503.
    """
    models: list[VideoModelInfo | VLModelInfo] = []
    unreachable: ServiceError | None = None
    for ask in (gateway.catalog.video_models, gateway.catalog.vl_models):
        try:
            models.extend(await ask())
        except ServiceError as error:
            unreachable = error
    if not models and unreachable is not None:
        raise unreachable
    return ModelList(data=models)
