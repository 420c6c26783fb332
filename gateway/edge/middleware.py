"""What a request passes before its route: below which path it is seen, whose page sent it, whether its address is text.

Where no key is needed, whoever is visited with a browser could use this server through other people's pages.
"""

import re
from contextvars import ContextVar
from urllib.parse import unquote_to_bytes, urlsplit

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Problem
from web.edge import is_local_name
from web.problems import problem_response

# Segments that are not empty: `//host` would lead to another server.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~@-]+){1,16}/?")
_current: ContextVar[str] = ContextVar("stillmotion_prefix", default="")
_OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # numbers only, asked for by any name
_SIGNED = "/v1/links/"  # the signature is the permission, wherever the link stands
_PORTS = {"http": 80, "https": 443}


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


class PageGuardMiddleware:
    """Refuses what another site's page sends, and requests for a name that is not this server's.

    The second is what makes the first hold: a page of a name whose address changes to this server's (DNS rebinding) is
    of the same origin, to the browser. `names` are this server's beside localhost and addresses; `origins` may call it.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self.app = app
        self._names = names
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (path := get_route_path(scope)) in _OPEN_PATHS:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        problem = self._of_host(headers.get("host", ""))
        if problem is None and not path.startswith(_SIGNED):
            problem = self._of_page(headers, scope["method"])
        if problem is not None:
            return await problem_response(problem)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _of_host(self, host: str) -> Problem | None:
        name = _host_and_port(f"//{host}")[0]
        if not host or is_local_name(name) or any(_fits(name, pattern) for pattern in self._names):
            return None
        return _refusal(
            "host_not_allowed", "Not a name of this server",
            f"This server does not know itself as {host[:200]}: call it by localhost or by its address, or let whoever "
            "runs it add the name to GATEWAY_HOSTS, or require keys (GATEWAY_KEYS=required).",
        )

    def _of_page(self, headers: Headers, method: str) -> Problem | None:
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site in ("same-origin", "none"):  # pages cannot set this header
            return None
        if origin is None:
            if site is None or _is_visit(headers, method):
                return None
            origin = _origin_of(headers.get("referer", ""))  # a picture or video in a page sends no origin
        if self._may_call(origin, headers.get("host", "")):
            return None
        return _refusal(
            "origin_not_allowed", "Pages of another site may not call this server",
            f"The page is of {(origin or 'an unnamed site')[:200]}: let whoever runs this server add that origin to "
            "GATEWAY_ORIGINS.",
        )

    def _may_call(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin.lower() in self._origins:
            return True
        scheme = urlsplit(origin).scheme if "://" in origin else ""
        name, port = _host_and_port(origin)
        if not name:
            return False
        own_name, own_port = _host_and_port(f"//{host}")
        standard = _PORTS.get(scheme)
        if (name, port or standard) == (own_name, own_port or standard):
            return True
        # Behind a proxy that calls this server by another name than its callers do.
        return port in (None, standard) and name in self._names


def _is_visit(headers: Headers, method: str) -> bool:
    """Whether somebody followed a link: the page that it stood on sees nothing of the answer."""
    return method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate" and (
        headers.get("sec-fetch-dest") in ("document", None)
    )


def _origin_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


def _fits(name: str, pattern: str) -> bool:
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def _refusal(code: str, title: str, detail: str) -> Problem:
    return Problem(status=403, code=code, title=title, detail=detail)


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
