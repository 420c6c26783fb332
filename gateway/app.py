"""The HTTP application: routes, lifespan, and the one place where exceptions become answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from contracts.errors import Problem
from contracts.openai.chat import ChatCompletionRequest, ConversedRequest
from contracts.refusal import Refusal
from contracts.resolve import advice
from gateway.api import describe, docs, generate, jobs, models
from gateway.api.media import files, links
from gateway.api.openai import chat as openai_chat
from gateway.api.openai import videos as openai_videos
from gateway.api.openapi import DESCRIPTION, with_keys, with_problem, with_shared_problems, without_keys
from gateway.api.status import health, metrics
from gateway.edge.middleware import PageGuardMiddleware, PlainAddressMiddleware, PrefixMiddleware
from gateway.run.metrics import GatewayMetrics
from gateway.runtime import Gateway, open_gateway
from gateway.services.errors import ServiceError
from gateway.settings import GatewaySettings
from gateway.storage.provenance.marking import VERSION
from gateway.storage.room import DiskFull
from gateway.submit.describing import DescribeBody
from gateway.submit.fields import FieldsRefused
from gateway.submit.intake import BodyTooLarge, IntakeFull, LingeringResponse, has_arrived
from web.calls import CallMiddleware
from web.chat.openai_errors import openais, shared
from web.edge import ClientGone, ErrorBodiesMiddleware, HttpMetricsMiddleware
from web.problems import install_problem_handlers, problem_response
from web.telemetry import of_requests

_WHILE_IT_ARRIVES = (BodyTooLarge, IntakeFull, DiskFull)
_SHOWN_TO_PAGES = (
    "Accept-Ranges", "Content-Disposition", "Content-Location", "Content-Range", "ETag", "Idempotent-Replayed",
    "Location", "Preference-Applied", "Retry-After", "X-Request-ID",
)
_SHARED_ROUTES = ("/v1/files", "/v1/models")
_DIALECTS = {"/v1/videos": openais, "/v1/chat": openais} | dict.fromkeys(_SHARED_ROUTES, shared)
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
        title="Stillmotion", version=VERSION, description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None,
        generate_unique_id_function=_by_name,
        telemetry=of_requests(),
    )
    app.router.routes.extend(_routes())
    app.add_middleware(PlainAddressMiddleware)
    if not settings.keys_required:
        app.add_middleware(PageGuardMiddleware, names=settings.called_as, origins=settings.allowed_origins)
    app.add_middleware(PrefixMiddleware, public_path=settings.public_path)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=_SHOWN_TO_PAGES, allow_private_network=True,
        )
    app.add_middleware(ErrorBodiesMiddleware, dialects=_DIALECTS)
    app.add_middleware(HttpMetricsMiddleware, registry=series.registry)
    app.add_middleware(CallMiddleware)
    install_problem_handlers(app, _answer)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)  # seen in the middle of the body
    _describe_fully(app, keys_required=settings.keys_required)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """The same for every app of a process: FastAPI works on them for 150 ms, and keeps there what it found."""
    whole = APIRouter(generate_unique_id_function=_by_name)
    for part in (generate, jobs, links, openai_videos, openai_chat, files, models, describe, health, metrics, docs):
        whole.include_router(part.router)
        whole.include_router(_heads(part.router))
    return whole.routes


def _by_name(route: APIRoute) -> str:
    return route.name


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


async def _answer(request: Request, refusal: Refusal) -> Response:
    """As every app answers, and with what only the gateway knows: the model's bounds, and how a field was called."""
    problem = refusal.problem
    if isinstance(refusal, FieldsRefused):
        problem = await _with_advice(problem, request.app.state.gateway)
    response = problem_response(_with_sent_names(problem, request))
    if isinstance(refusal, _WHILE_IT_ARRIVES) and not has_arrived(request):
        return LingeringResponse(response.body, response.status_code, dict(response.headers))
    return response


async def _answer_nobody(request: Request, _: Exception) -> Response:
    return await _answer(request, ClientGone())


async def _with_advice(problem: Problem, gateway: Gateway) -> Problem:
    """The refused fields of a body, each with what the model takes where that is known."""
    try:
        model = (await gateway.catalog.video_models())[0]
    except ServiceError:
        model = None
    fields = [
        field.model_copy(update={
            "field": field.field if field.field == "body" else f"body.{field.field}",
            "message": f"{field.message}. {advice(field.field, model) if model else ''}".rstrip(" ."),
        })
        for field in problem.errors or []
    ]
    detail = "; ".join(f"{field.field}: {field.message}" for field in fields[:5])
    return problem.model_copy(update={"errors": fields, "detail": detail})


def _with_sent_names(problem: Problem, request: Request) -> Problem:
    """The picture is called otherwise on some routes: a refusal names the field that was sent."""
    path = get_route_path(request.scope)
    sent = next((name for prefix, name in _PICTURE_FIELDS.items() if path.startswith(prefix)), "image")
    errors = [
        field.model_copy(update={"field": f"body.{sent}"}) if field.field == "body.image" else field
        for field in problem.errors or []
    ]
    return problem.model_copy(update={"errors": errors or None})


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
