"""Addresses that are no text: refused before they reach a route."""

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Problem
from web.problems import problem_response


class PlainAddressMiddleware:
    """Refuses a path or query that is no UTF-8 or has U+0000: no id is such, and Postgres knows no such text."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope.get("raw_path") or scope["path"].encode()
            for name, raw in (("path", path), ("query", scope["query_string"])):
                if not _is_text(raw):
                    problem = Problem(
                        status=422, code="invalid_request", title="The address is not valid",
                        detail=f"The {name} is no UTF-8 text, or has U+0000 in it: encode it as UTF-8, then as %xx.",
                    )
                    return await problem_response(problem)(scope, receive, send)
        return await self.app(scope, receive, send)


def _is_text(raw: bytes) -> bool:
    plain = unquote_to_bytes(raw)
    if b"\0" in plain:
        return False
    try:
        plain.decode()
    except UnicodeDecodeError:
        return False
    return True
