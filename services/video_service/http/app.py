"""The HTTP app: what lives as long as it, and what every error means to a caller. Imports no model library."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from contracts.videos import MAX_VIDEO_BODY_BYTES
from video_service.http.routes import router
from video_service.http.service import WORKER_COMMAND, Batching, VideoService, supervise
from video_service.queue.files import RenderFiles
from video_service.queue.queue import Limits, RenderQueue
from video_service.settings import VideoSettings
from video_service.weights.lora import LoraFolder
from web.edge import add_edge
from web.metrics import add_metrics_route
from web.problems import install_problem_handlers
from web.telemetry import of_requests


def create_app(
    settings: VideoSettings, files: RenderFiles, *, worker_command: Sequence[str] = WORKER_COMMAND
) -> FastAPI:
    """The app over `files`, whose folder the caller holds. `worker_command` gets a socket's descriptor appended."""
    renders = RenderQueue(files, Limits(
        max_waiting=settings.max_queue, keep_finished_s=settings.keep_finished_s, max_finished=settings.max_finished,
        max_finished_bytes=settings.max_finished_bytes,
    ))
    service = VideoService(
        renders, supervise(settings, renders, worker_command), LoraFolder(settings.loras_dir),
        render_timeout_s=settings.render_timeout_s,
        batching=Batching(most=settings.batch, wait_s=settings.batch_wait_s),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Stillmotion video service", lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=of_requests(),
    )
    app.state.service = service
    app.include_router(router)
    install_problem_handlers(app)
    token = settings.internal_token.get_secret_value() if settings.internal_token else None
    add_edge(app, renders.metrics.registry, token=token, max_bytes=MAX_VIDEO_BODY_BYTES)
    add_metrics_route(app, renders.metrics.registry)
    return app
