"""The path below which callers see this server, where a proxy stands before it."""

import re
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

# Segments that are not empty: `//host` would lead to another server.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~@-]+){1,16}/?")
_current: ContextVar[str] = ContextVar("stillmotion_prefix", default="")


def current_prefix() -> str:
    """The prefix of the request that this task serves; empty outside of requests."""
    return _current.get()


class PrefixMiddleware:
    """Sets `root_path` from `X-Forwarded-Prefix`, which a proxy sends that took the prefix away, or else to
    `public_path`, which may be there or not."""

    def __init__(self, app: ASGIApp, public_path: str) -> None:
        self.app = app
        self._public_path = public_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        mounted: str = scope.get("root_path", "")
        path: str = scope["path"].removeprefix(mounted)
        raw: bytes = (scope.get("raw_path") or path.encode()).removeprefix(mounted.encode())
        given = Headers(scope=scope).get("x-forwarded-prefix", "").split(",")[0].strip()
        if _PREFIX.fullmatch(given):
            outer = given.rstrip("/")
        else:
            outer = self._public_path
            if path == outer or path.startswith(f"{outer}/"):
                path, raw = path[len(outer):] or "/", raw[len(outer):] or b"/"
        prefix = outer + mounted
        _current.set(prefix)
        # In place: what stands outside of this reads the route that is found below.
        scope.update(root_path=prefix, path=prefix + path, raw_path=prefix.encode() + raw)
        return await self.app(scope, receive, send)
