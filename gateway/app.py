"""The HTTP application: routes, lifespan, and the one place where exceptions become answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from contracts.errors import FieldProblem, Problem
from contracts.openai_chat import ChatCompletionRequest, ConversedRequest
from contracts.resolve import ParameterRefused
from gateway.api import describe, docs, generate, jobs, models
from gateway.api.advice import refused_fields
from gateway.api.media import files, links
from gateway.api.openai import chat as openai_chat
from gateway.api.openai import videos as openai_videos
from gateway.api.openapi import DESCRIPTION, with_keys, with_problem, with_shared_problems, without_keys
from gateway.api.status import health, metrics
from gateway.auth.addresses import AddressRefused
from gateway.auth.callers import KeyRefused, RateExceeded
from gateway.database.errors import DatabaseBusy, DatabaseFull
from gateway.edge.addresses import PlainAddressMiddleware
from gateway.edge.pages import PageGuardMiddleware
from gateway.edge.prefix import PrefixMiddleware
from gateway.images.refusals import DecodersBusy, ImageRefused
from gateway.intake.intake import LingeringResponse, has_arrived
from gateway.intake.refusals import BodyRefused, BodyTooLarge, FieldsRefused, IntakeFull
from gateway.jobs.job import IllegalTransition, JobNotFound, KeyReused, OwnerQueueFull, QueueFull
from gateway.run.failures import service_problem
from gateway.run.metrics import GatewayMetrics
from gateway.runtime import open_gateway
from gateway.services.clients import ServiceError
from gateway.settings import GatewaySettings
from gateway.storage.files import StoreBusy, StoreFull
from gateway.storage.room import DiskFull
from gateway.submit.describing import DescribeBody
from gateway.submit.fetch import FetchFailed
from gateway.submit.remix import NotRemixable
from gateway.submit.uploaded import TooManyFiles, UploadNotFound
from web.calls import CallMiddleware
from web.chat.connected import ClientGone
from web.chat.openai_errors import OpenAIErrorMiddleware
from web.metrics import HttpMetricsMiddleware
from web.problem_bodies import ProblemBodiesMiddleware
from web.problems import install_problem_handlers, problem_response

_QUEUE_RETRY_AFTER_S = 10
_DISK_RETRY_AFTER_S = 60
_STORAGE_RETRY_AFTER_S = 5
_STATUS_OF_CODE = {
    "image_too_many_bytes": 413, "image_format_unsupported": 415, "unsupported_media_type": 415, "too_many_fields": 413,
}
_SHOWN_TO_PAGES = (
    "Accept-Ranges", "Content-Disposition", "Content-Location", "Content-Range", "ETag", "Idempotent-Replayed",
    "Location", "Preference-Applied", "Retry-After", "X-Request-ID",
)
_OPENAI_ROUTES = ("/v1/videos", "/v1/chat")
_SHARED_ROUTES = ("/v1/files", "/v1/models")
_PICTURE_FIELDS = {"/v1/chat": "messages", "/v1/videos": "input_reference", "/v1/files": "file"}


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway as an ASGI app; its lifespan opens and closes everything it works with."""
    series = GatewayMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings, series) as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(
        title="Stillmotion", version="0.1.0", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        # Traces and series are ours (`web`); looking for others costs each request as much as its place in the line.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for part in (generate, jobs, links, openai_videos, openai_chat, files, models, describe, health, metrics, docs):
        app.include_router(part.router)
        app.include_router(_heads(part.router))
    app.add_middleware(PlainAddressMiddleware)
    if not settings.keys_required:
        app.add_middleware(PageGuardMiddleware, names=settings.called_as, origins=settings.allowed_origins)
    app.add_middleware(OpenAIErrorMiddleware, routes=_OPENAI_ROUTES, shared=_SHARED_ROUTES)
    app.add_middleware(PrefixMiddleware, public_path=settings.public_path)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=_SHOWN_TO_PAGES, allow_private_network=True,
        )
    app.add_middleware(ProblemBodiesMiddleware)
    app.add_middleware(HttpMetricsMiddleware, registry=series.registry)
    app.add_middleware(CallMiddleware)
    install_problem_handlers(app)
    for kind, explain in _EXPLANATIONS.items():
        app.add_exception_handler(kind, _answer(explain))
    app.add_exception_handler(FieldsRefused, _answer_with_advice)
    for kind, explain in _WHILE_IT_ARRIVES.items():
        app.add_exception_handler(kind, _answer_and_linger(explain))
    _describe_fully(app, keys_required=settings.keys_required)
    return app


def _heads(router: APIRouter) -> APIRouter:
    """HEAD wherever GET is; the server leaves the body out."""
    heads = APIRouter()
    for route in router.routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            heads.add_api_route(
                route.path, route.endpoint, methods=["HEAD"], include_in_schema=False,
                response_class=route.response_class,
            )
    return heads


def _answer(explain: Callable[[Any], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return problem_response(_with_sent_names(explain(error), request))

    return handle


def _answer_and_linger(explain: Callable[[Any], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        response = problem_response(explain(error))
        if has_arrived(request):
            return response
        return LingeringResponse(response.body, response.status_code, dict(response.headers))

    return handle


async def _answer_with_advice(request: Request, error: Exception) -> Response:
    assert isinstance(error, FieldsRefused)
    return problem_response(await refused_fields(error.cause, request.app.state.gateway))


def _with_sent_names(problem: Problem, request: Request) -> Problem:
    """The picture is called otherwise on some routes: a refusal names the field that was sent."""
    path = get_route_path(request.scope)
    sent = next((name for prefix, name in _PICTURE_FIELDS.items() if path.startswith(prefix)), "image")
    errors = [
        field.model_copy(update={"field": f"body.{sent}"}) if field.field == "body.image" else field
        for field in problem.errors or []
    ]
    return problem.model_copy(update={"errors": errors or None})


def _key_refused(error: KeyRefused) -> Problem:
    return Problem(status=401, code="key_required", title="A key is required", detail=error.detail)


def _rate_exceeded(error: RateExceeded) -> Problem:
    return Problem(
        status=429, code="rate_limited", title="Too many requests", retry_after_s=error.retry_after_s,
        detail=f"This key may ask for work {error.rate}: send the request again in {error.retry_after_s} s.",
    )


def _job_not_found(error: JobNotFound) -> Problem:
    return Problem(
        status=404, code="job_not_found", title="No such job", job_id=error.job_id,
        detail=f"There is no job {error.job_id}; GET /v1/jobs lists those that there are.",
    )


def _illegal_transition(error: IllegalTransition) -> Problem:
    if error.wanted == "removed":
        detail = f"The job is {error.present}: cancel it (POST /v1/jobs/{error.job_id}/cancel), then delete it."
    else:
        detail = f"The job is already {error.present}; nothing was changed."
    return Problem(
        status=409, code="job_state_conflict", title="The job's state does not allow it", job_id=error.job_id,
        detail=detail,
    )


def _queue_full(error: QueueFull) -> Problem:
    return Problem(
        status=429, code="queue_full", title="The queue is full", retry_after_s=_QUEUE_RETRY_AFTER_S,
        detail=f"{error.limit} jobs wait, which is all that may: send the request again in {_QUEUE_RETRY_AFTER_S} s.",
    )


def _owner_queue_full(error: OwnerQueueFull) -> Problem:
    return Problem(
        status=429, code="too_many_jobs", title="Too many jobs of yours", retry_after_s=_QUEUE_RETRY_AFTER_S,
        detail=f"{error.limit} jobs of this key wait or run, all that may: wait for one to end, or cancel one.",
    )


def _image_refused(error: ImageRefused) -> Problem:
    return Problem(
        status=_STATUS_OF_CODE.get(error.code, 422), code=error.code, title="The picture is not taken",
        detail=error.detail, errors=[FieldProblem(field="body.image", message=error.detail)],
    )


def _decoders_busy(error: DecodersBusy) -> Problem:
    return Problem(
        status=503, code="image_decoders_busy", title="Too many pictures at once", retry_after_s=error.retry_after_s,
        detail=f"Other pictures wait to be checked: send the request again in {error.retry_after_s} s.",
    )


def _parameter_refused(error: ParameterRefused) -> Problem:
    return Problem(
        status=422, code=error.code, title="The request cannot be served", detail=error.message,
        errors=[FieldProblem(field=f"body.{error.field}", message=error.message)],
    )


def _body_refused(error: BodyRefused) -> Problem:
    return Problem(
        status=_STATUS_OF_CODE.get(error.code, 422), code=error.code, title="The request is not valid",
        detail=error.detail,
        errors=[FieldProblem(field=f"body.{error.field}", message=error.detail)] if error.field else None,
    )


def _body_too_large(error: BodyTooLarge) -> Problem:
    return Problem(
        status=413, code="body_too_large", title="The request is too large",
        detail=f"A request has at most {error.limit / 2**20:.0f} MiB: send a smaller picture.",
    )


def _intake_full(_: IntakeFull) -> Problem:
    return Problem(
        status=503, code="too_much_arrives", title="Too much arrives at once", retry_after_s=_QUEUE_RETRY_AFTER_S,
        detail=f"Other requests' pictures take all the room there is: send this one again in {_QUEUE_RETRY_AFTER_S} s.",
    )


def _key_reused(error: KeyReused) -> Problem:
    return Problem(
        status=422, code="idempotency_key_reused", title="The Idempotency-Key belongs to another request",
        job_id=error.job_id,
        detail=f"This Idempotency-Key made {error.job_id} from another body: send a new key with a new request.",
    )


def _not_remixable(error: NotRemixable) -> Problem:
    return Problem(
        status=409, code="video_not_completed", title="The video is not completed", job_id=error.job_id,
        detail=f"Only a completed video can be remixed; this one is {error.state}.",
    )


def _upload_not_found(error: UploadNotFound) -> Problem:
    return Problem(
        status=404, code="file_not_found", title="No such file",
        detail=f"There is no file {error.file_id}; POST /v1/files makes one, GET /v1/files lists those that there are.",
        errors=[FieldProblem(field="file_id", message="There is no such file")],
    )


def _too_many_files(error: TooManyFiles) -> Problem:
    return Problem(
        status=409, code="too_many_files", title="Too many files",
        detail=f"{error.limit} files are kept, which is all that may: delete one (DELETE /v1/files/{{id}}) first.",
    )


def _picture_not_fetched(error: AddressRefused | FetchFailed) -> Problem:
    return Problem(
        status=_STATUS_OF_CODE.get(error.code, 422), code=error.code, title="The picture cannot be fetched",
        detail=error.detail, errors=[FieldProblem(field="body.image", message=error.detail)],
    )


def _disk_full(error: DiskFull) -> Problem:
    return Problem(
        status=507, code="disk_full", title="No room on disk", retry_after_s=_DISK_RETRY_AFTER_S,
        detail=f"{error.free // 2**20} MiB are free where {error.needed // 2**20} MiB are needed: delete jobs that are "
        "done with, or give the server more space.",
    )


def _storage_busy(error: DatabaseBusy | StoreBusy) -> Problem:
    which, what = ("database", "database") if isinstance(error, DatabaseBusy) else ("storage", "place for files")
    return Problem(
        status=503, code=f"{which}_unavailable", title=f"The {what} cannot be used now",
        retry_after_s=_STORAGE_RETRY_AFTER_S,
        detail=f"No job is lost. Send the request again in {_STORAGE_RETRY_AFTER_S} s.",
    )


def _storage_full(_: DatabaseFull | StoreFull) -> Problem:
    return Problem(
        status=507, code="disk_full", title="No room on disk", retry_after_s=_DISK_RETRY_AFTER_S,
        detail="The disk is full: delete jobs that are done with, or give the server more space.",
    )


def _client_gone(_: ClientGone | ClientDisconnect) -> Problem:
    return Problem(
        status=499, code="client_closed_request", title="Nobody waits",
        detail="The connection was closed; a job that was accepted goes on.",
    )


_EXPLANATIONS: dict[type[Exception], Callable[[Any], Problem]] = {
    KeyRefused: _key_refused,
    RateExceeded: _rate_exceeded,
    JobNotFound: _job_not_found,
    IllegalTransition: _illegal_transition,
    QueueFull: _queue_full,
    OwnerQueueFull: _owner_queue_full,
    ImageRefused: _image_refused,
    DecodersBusy: _decoders_busy,
    ParameterRefused: _parameter_refused,
    BodyRefused: _body_refused,
    KeyReused: _key_reused,
    NotRemixable: _not_remixable,
    UploadNotFound: _upload_not_found,
    TooManyFiles: _too_many_files,
    AddressRefused: _picture_not_fetched,
    FetchFailed: _picture_not_fetched,
    ServiceError: service_problem,
    DatabaseBusy: _storage_busy,
    DatabaseFull: _storage_full,
    StoreBusy: _storage_busy,
    StoreFull: _storage_full,
    ClientGone: _client_gone,
    ClientDisconnect: _client_gone,
}
_WHILE_IT_ARRIVES: dict[type[Exception], Callable[[Any], Problem]] = {
    BodyTooLarge: _body_too_large,
    IntakeFull: _intake_full,
    DiskFull: _disk_full,
}


def _describe_fully(app: FastAPI, *, keys_required: bool) -> None:
    generate_schema = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = with_problem(generate_schema())
            # These routes read their bodies by themselves, so the types are named here.
            for body in (DescribeBody, ConversedRequest, ChatCompletionRequest):
                described = body.model_json_schema(ref_template="#/components/schemas/{model}")
                schema["components"]["schemas"] |= described.pop("$defs", {}) | {described["title"]: described}
            schema = with_keys(schema) if keys_required else without_keys(schema)
            app.openapi_schema = with_shared_problems(schema, _SHARED_ROUTES)
        return app.openapi_schema

    app.openapi = openapi
