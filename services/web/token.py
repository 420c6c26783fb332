"""The internal token: the two model services accept only the gateway."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Problem
from web.problems import problem_response
from web.telemetry import HEALTH_PATHS


class InternalTokenMiddleware:
    """Refuses every request without `Authorization: Bearer <token>`, except health checks and metrics.

    With no token configured (the loopback default) everything passes.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Health and metrics are numbers, no words of any caller: who collects them must not need the token, with which
        # one can render.
        if scope["type"] != "http" or self.token is None or scope["path"] in HEALTH_PATHS:
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            return await self.app(scope, receive, send)
        problem = Problem(
            status=401, code="unauthorized", title="Internal token required",
            detail="This service answers the gateway only; set STILLMOTION_INTERNAL_TOKEN to the same value on both.",
        )
        return await problem_response(problem, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
