"""The HTTP face of the service: routes, readiness, and the life of the worker behind them. Imports no model library."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from contracts.describe import DescribeRequest, DescribeResponse
from contracts.models import Health, VLModelInfo, VLModelList
from contracts.openai.chat import DialogueRequest, DialogueResponse
from contracts.wire import MAX_BODY_BYTES
from vl_service.describe import describe
from vl_service.http.dialogue import add_dialogue_routes, answer_dialogue, described
from vl_service.http.features import add_features_route
from vl_service.http.metrics import VLMetrics
from vl_service.http.vision_probe import VisionProbe
from vl_service.model import WORKER_COMMAND, Model
from vl_service.prompts.profiles import use_profiles
from vl_service.settings import Settings
from web.chat.openai_errors import openais
from web.edge import add_edge
from web.metrics import add_metrics_route
from web.problems import install_problem_handlers
from web.telemetry import of_requests

log = logging.getLogger(__name__)


def create_app(settings: Settings, *, worker_command: Sequence[str] = WORKER_COMMAND) -> FastAPI:
    """The app; its worker loads the model from the moment it starts. `worker_command` gets a descriptor appended.

    Raises `ProfileError` for what cannot be used in VL_PROFILES.
    """
    use_profiles(settings.profiles_dir)
    metrics = VLMetrics()
    model = Model(settings, worker_command, on_gpu_memory=metrics.gpu_memory)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        model.start()
        try:
            yield
        finally:
            await model.stop()

    app = FastAPI(
        title="Stillmotion vision-language service", lifespan=lifespan, docs_url=None, redoc_url=None,
        telemetry=of_requests(),
    )
    app.state.model = model
    token = settings.internal_token.get_secret_value() if settings.internal_token else None
    add_edge(
        app, metrics.registry, token=token, max_bytes=MAX_BODY_BYTES, dialects={"/v1/chat/completions": openais})
    install_problem_handlers(app)
    _add_health(app, model, VisionProbe(settings))
    _add_routes(app, model, metrics)
    add_dialogue_routes(app, model)
    add_features_route(app, model, metrics)
    return app


def _add_health(app: FastAPI, model: Model, vision: VisionProbe) -> None:
    @app.get("/livez")
    async def livez() -> Health:
        """The process answers."""
        return Health(ready=True)

    @app.get("/readyz", responses={503: {"model": Health}})
    async def readyz() -> Response:
        """200 when a description would succeed now, else 503 with the reason."""
        reason = model.not_ready or await vision.away()
        details = {} if reason else _details(model.info)
        health = Health(
            ready=reason is None, stuck=model.is_stuck, reasons=[reason] if reason else [], details=details)
        return JSONResponse(health.model_dump(mode="json"), 503 if reason else 200)


def _details(info: VLModelInfo) -> dict[str, str]:
    names = ("engine", "engine_reason", "vision_engine", "vision_engine_reason")
    return {"model": info.id} | {name: getattr(info, name) for name in names if getattr(info, name)}


def _add_routes(app: FastAPI, model: Model, metrics: VLMetrics) -> None:
    async def measure() -> None:
        metrics.measure(model.in_flight)

    add_metrics_route(app, metrics.registry, measure)

    @app.get("/v1/models")
    async def models() -> VLModelList:
        """The loaded model."""
        return VLModelList(data=[model.info])

    @app.post("/v1/describe", response_model=DescribeResponse | DialogueResponse)
    async def describe_picture(
        request: Annotated[DescribeRequest | DialogueRequest, Depends(described)], call: Request
    ) -> DescribeResponse | Response:
        """Caption, prompt, suggestions and answers about a picture, several per call; or a dialogue, by `messages`."""
        if isinstance(request, DialogueRequest):
            return await answer_dialogue(model, request, call)
        answer = await describe(model, request)
        metrics.described(answer.seconds)
        metrics.looked(answer.cache)
        log.info("described", extra={"tasks": [task.kind for task in request.tasks], "seconds": answer.seconds})
        return answer
