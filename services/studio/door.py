"""Who may use this page: whoever the gateway takes, and no other site's page in their browser."""

import hashlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.api import Api, ApiFailure
from web.edge import is_local_name

KEY_COOKIE = "stillmotion_key"
LOGIN = "/login"
_OPEN = frozenset({"/livez", "/readyz", LOGIN})
_FRESH_S = 20.0
_MAX_REMEMBERED = 1000


class Admission:
    """Which keys the gateway takes, remembered for a moment: a page asks for dozens of files."""

    def __init__(self, api_for: Callable[[str | None], Api]) -> None:
        self._api_for = api_for
        self._known: dict[str, tuple[float, bool]] = {}

    async def admits(self, key: str | None) -> bool:
        """Whether the gateway takes `key`; where it cannot be asked, as it was before, and True at first."""
        name = hashlib.sha256((key or "").encode()).hexdigest()
        at, admitted = self._known.get(name, (0.0, True))
        if at and time.monotonic() - at < _FRESH_S:
            return admitted
        try:
            await self._api_for(key).jobs(limit=1)
            admitted = True
        except ApiFailure as failure:
            admitted = failure.status != 401 and admitted
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[name] = (time.monotonic(), admitted)
        return admitted


class DoorMiddleware:
    """Refuses hosts that are not this page's (so that no name can be bound anew to it), requests of other sites, and
    those whom the gateway does not know; a browser that opens the page is led to the login."""

    def __init__(self, app: ASGIApp, admission: Admission, called_as: frozenset[str]) -> None:
        self.app = app
        self._admission = admission
        self._called_as = called_as

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refusal = await self._refusal(HTTPConnection(scope), scope)
        return await (refusal or self.app)(scope, receive, send)

    async def _refusal(self, connection: HTTPConnection, scope: Scope) -> Response | None:
        path, headers = scope["path"], connection.headers
        if path in ("/livez", "/readyz"):
            return None
        if not self._is_own(headers.get("host", "")):
            return PlainTextResponse(
                "This page does not know itself by that name: open it by localhost or its address, or let whoever "
                "runs it add the name to STUDIO_HOSTS.", 403)
        if _is_foreign(headers, scope["method"]):
            return PlainTextResponse("Pages of another site may not use this one.", 403)
        if path in _OPEN or path.startswith("/look/") or await self._admission.admits(
                connection.cookies.get(KEY_COOKIE)):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(LOGIN, 303)
        return PlainTextResponse("Log in first.", 401)

    def _is_own(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        return is_local_name(name) or bool(self._called_as & {name, "*"})


def _is_foreign(headers: Headers, method: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return False
    visits = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    if site is not None:
        return not (visits and headers.get("sec-fetch-dest") == "document")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
