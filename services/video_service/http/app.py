"""The HTTP app: what lives as long as it, and what every error means to a caller. Imports no model library."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import Response

from contracts.describe import MAX_IMAGE_BASE64_CHARS
from contracts.errors import Problem
from video_service.catalog import RequestRefused
from video_service.http.routes import router
from video_service.http.service import ServiceUnavailable, VideoService
from video_service.picture import PictureUnreadable
from video_service.queue.files import RenderStore
from video_service.queue.queue import RenderQueue
from video_service.queue.render import QueueFull, RenderConflict, RenderNotFinished, RenderNotFound, RenderStopping
from video_service.settings import VideoSettings
from video_service.worker.failures import refusal
from video_service.worker.supervisor import WORKER_COMMAND, Supervisor
from web.body_limit import BodyLimitMiddleware
from web.calls import CallMiddleware
from web.metrics import HttpMetricsMiddleware, add_metrics_route
from web.problem_bodies import ProblemBodiesMiddleware
from web.problems import install_problem_handlers, problem_response
from web.token import InternalTokenMiddleware

MAX_BODY_BYTES = MAX_IMAGE_BASE64_CHARS + 256 * 1024  # the picture, two prompts and the small fields
_STOPPING_RETRY_S = 1


def create_app(
    settings: VideoSettings, store: RenderStore, *, worker_command: Sequence[str] = WORKER_COMMAND
) -> FastAPI:
    """The app over `store`, whose folder the caller holds. `worker_command` gets a socket's descriptor appended."""
    renders = RenderQueue(
        store, max_waiting=settings.max_queue, keep_finished_s=settings.keep_finished_s,
        max_finished=settings.max_finished,
    )
    service = VideoService(renders, Supervisor(settings, renders, worker_command=worker_command))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(title="Stillmotion video service", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    install_problem_handlers(app)
    for kind, explain in _PROBLEMS.items():
        app.add_exception_handler(kind, _answer_with(explain))
    token = settings.internal_token.get_secret_value() if settings.internal_token else None
    app.add_middleware(BodyLimitMiddleware, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(InternalTokenMiddleware, token=token)
    app.add_middleware(ProblemBodiesMiddleware)
    app.add_middleware(HttpMetricsMiddleware, registry=renders.metrics.registry)
    app.add_middleware(CallMiddleware, internal=True)
    add_metrics_route(app, renders.metrics.registry)
    return app


def _answer_with(explain: Callable[..., Problem]) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        return problem_response(explain(error))

    return answer


def _not_found(error: RenderNotFound) -> Problem:
    return Problem(status=404, code="render_not_found", title="No such render", detail=str(error))


def _conflict(error: RenderConflict) -> Problem:
    return Problem(status=409, code="render_conflict", title="The id is taken", detail=str(error))


def _stopping(error: RenderStopping) -> Problem:
    return Problem(
        status=409, code="render_stopping", title="The render is being canceled", detail=str(error),
        retry_after_s=_STOPPING_RETRY_S,
    )


def _not_finished(error: RenderNotFinished) -> Problem:
    status = error.status
    detail = f"The render {status.id} is {status.state} and has no video."
    if status.error is not None:
        detail += f" {status.error.detail}"
    return Problem(status=409, code="render_not_finished", title="There is no video", detail=detail)


def _full(error: QueueFull) -> Problem:
    return Problem(
        status=429, code="queue_full", title="The queue is full",
        detail=f"{error} A place should be free in {error.retry_after_s} s.", retry_after_s=error.retry_after_s,
    )


def _unavailable(error: ServiceUnavailable) -> Problem:
    return Problem(
        status=503, code="model_unavailable", title="Nothing can be rendered now", detail=str(error),
        retry_after_s=error.retry_after_s,
    )


_PROBLEMS: dict[type[Exception], Callable[..., Problem]] = {
    RenderNotFound: _not_found, RenderConflict: _conflict, RenderStopping: _stopping,
    RenderNotFinished: _not_finished, QueueFull: _full, ServiceUnavailable: _unavailable,
    RequestRefused: refusal, PictureUnreadable: refusal,
}
