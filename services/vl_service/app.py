"""The HTTP face of the service: routes, readiness, and domain errors as problem+json."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from contracts.describe import MAX_IMAGE_BASE64_CHARS, DescribeRequest, DescribeResponse
from contracts.errors import Problem
from contracts.models import Health, VLModelInfo, VLModelList
from engine_store.manifest import EngineRefused
from vl_service.backend import Backend, DeadlineExceededError
from vl_service.describe import NothingToDescribeError, describe
from vl_service.engine_thread import EngineThread, ModelFailedError, ModelNotReadyError, QueueFullError
from vl_service.images import ImageRefusedError
from vl_service.load import load_backend
from vl_service.metrics import VLMetrics
from vl_service.prompts.profiles import UnknownProfileError
from vl_service.settings import Settings
from web.body_limit import BodyLimitMiddleware
from web.calls import CallMiddleware
from web.metrics import HttpMetricsMiddleware, add_metrics_route
from web.problem_bodies import ProblemBodiesMiddleware
from web.problems import install_problem_handlers, problem_response
from web.token import InternalTokenMiddleware

log = logging.getLogger(__name__)

MAX_BODY_BYTES = MAX_IMAGE_BASE64_CHARS + 1_000_000  # the picture and eight tasks of the longest texts, escaped


def create_app(settings: Settings, load: Callable[[Settings], Backend] = load_backend) -> FastAPI:
    """The app; its model loads in the background from the moment it starts."""
    engine = EngineThread(
        settings.model, lambda: load(settings), queue_limit=settings.queue_limit, deadline_s=settings.deadline_s)

    metrics = VLMetrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = FastAPI(title="Stillmotion vision-language service", lifespan=lifespan, docs_url=None, redoc_url=None)
    token = settings.internal_token.get_secret_value() if settings.internal_token else None
    app.add_middleware(BodyLimitMiddleware, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(InternalTokenMiddleware, token=token)
    app.add_middleware(ProblemBodiesMiddleware)
    app.add_middleware(HttpMetricsMiddleware, registry=metrics.registry)
    app.add_middleware(CallMiddleware, internal=True)
    install_problem_handlers(app)
    for error_type, to_problem in _PROBLEMS.items():
        app.add_exception_handler(error_type, _handler(to_problem))
    _add_health(app, engine)
    _add_routes(app, engine, settings, metrics)
    return app


def _add_health(app: FastAPI, engine: EngineThread) -> None:
    @app.get("/livez")
    async def livez() -> Health:
        """The process answers."""
        return Health(ready=True)

    @app.get("/readyz", responses={503: {"model": Health}})
    async def readyz() -> Response:
        """200 when a description would succeed now, else 503 with the reasons."""
        reasons = engine.ready_reasons()
        details = {} if reasons else _details(engine.engine.info)
        health = Health(ready=not reasons, stuck=engine.failed, reasons=reasons, details=details)
        return JSONResponse(health.model_dump(mode="json"), 503 if reasons else 200)


def _details(info: VLModelInfo) -> dict[str, str]:
    names = ("engine", "vision_engine", "vision_engine_reason")
    return {"model": info.id} | {name: getattr(info, name) for name in names if getattr(info, name)}


def _add_routes(app: FastAPI, engine: EngineThread, settings: Settings, metrics: VLMetrics) -> None:
    async def measure() -> None:
        metrics.measure(engine.in_flight)

    add_metrics_route(app, metrics.registry, measure)

    @app.get("/v1/models")
    async def models() -> VLModelList:
        """The loaded model."""
        return VLModelList(data=[engine.engine.info])

    @app.post("/v1/describe")
    async def describe_picture(request: DescribeRequest) -> DescribeResponse:
        """Caption, prompt, suggestions and answers about a picture, several per call."""
        answer = await describe(engine, request, max_image_pixels=settings.max_image_pixels)
        metrics.described(answer.seconds)
        log.info("described", extra={"tasks": [task.kind for task in request.tasks], "seconds": answer.seconds})
        return answer


def _not_ready(error: Exception) -> Problem:
    return Problem(status=503, code="model_loading", title="The model is still loading", retry_after_s=2,
                   detail="The vision-language model is still loading; retry in a moment.")


def _failed(error: Exception) -> Problem:
    return Problem(status=503, code="model_failed", title="The model could not be loaded",
                   detail=f"{str(error)[:1500]}. Check VL_MODEL and restart the service.")


def _queue_full(error: Exception) -> Problem:
    assert isinstance(error, QueueFullError)
    return Problem(status=429, code="queue_full", title="Too many requests at once", retry_after_s=error.retry_after_s,
                   detail=f"The vision-language service is busy; retry in {error.retry_after_s} s.")


def _engine(error: Exception) -> Problem:
    return Problem(status=503, code="engine_refused", title="The engine does not run",
                   detail=f"{str(error)[:1500]}. Build it again, or set VL_ENGINE=auto, and restart the service.")


def _deadline(error: Exception) -> Problem:
    return Problem(status=504, code="deadline_exceeded", title="No answer in time",
                   detail="The model did not answer in time; ask for fewer tasks or tokens, or raise VL_DEADLINE_S.")


def _picture(error: Exception) -> Problem:
    assert isinstance(error, ImageRefusedError)
    status = 413 if error.code == "image_too_large" else 422
    return Problem(status=status, code=error.code, title="The picture was refused", detail=str(error))


def _profile(error: Exception) -> Problem:
    return Problem(status=422, code="unknown_profile", title="Unknown profile", detail=f"There is {error}.")


def _nothing(error: Exception) -> Problem:
    text = str(error)
    return Problem(status=422, code="nothing_to_describe", title="Nothing to describe",
                   detail=f"{text[0].upper()}{text[1:]}.")


_PROBLEMS: dict[type[Exception], Callable[[Exception], Problem]] = {
    ModelNotReadyError: _not_ready, ModelFailedError: _failed, QueueFullError: _queue_full,
    DeadlineExceededError: _deadline, EngineRefused: _engine, ImageRefusedError: _picture,
    UnknownProfileError: _profile, NothingToDescribeError: _nothing,
}


def _handler(to_problem: Callable[[Exception], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(_: Request, error: Exception) -> Response:
        return problem_response(to_problem(error))
    return handle
