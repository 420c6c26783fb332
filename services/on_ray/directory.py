"""Where the replicas listen: each says so again and again, and the gateway asks for the list."""

import hmac
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

FORGOTTEN_AFTER_S = 30.0


class Directory:
    """`GET /video` and `GET /vl` answer `{"members": ["http://10.0.0.7:31245", ...]}`.

    One that begins anew knows all again after a health check; the gateway keeps the members it had until then.
    """

    def __init__(self, token: str | None, *groups: object) -> None:
        """`groups` are what Serve deploys with it."""
        self._token = token
        self._seen: dict[str, dict[str, float]] = {"video": {}, "vl": {}}

    def joined(self, service: str, url: str) -> None:
        """A replica listens at `url` now."""
        self._seen[service][url] = time.monotonic()

    def left(self, service: str, url: str) -> None:
        """It takes no new work."""
        self._seen[service].pop(url, None)

    async def __call__(self, request: Request) -> Response:
        """The list of one service, or whether each has a member."""
        path = request.url.path.strip("/")
        if path in ("livez", "readyz"):
            lacking = [service for service in self._seen if not self._members(service)] if path == "readyz" else []
            reasons = [f"no {service} replica is ready" for service in lacking]
            return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
        given = request.headers.get("authorization", "")
        if self._token is not None and not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return JSONResponse({"detail": "STILLMOTION_INTERNAL_TOKEN is to be the same on the gateway"}, 401)
        if path not in self._seen:
            return JSONResponse({"detail": "GET /video or GET /vl"}, 404)
        return JSONResponse({"members": self._members(path)})

    def _members(self, service: str) -> list[str]:
        oldest = time.monotonic() - FORGOTTEN_AFTER_S
        self._seen[service] = {url: at for url, at in self._seen[service].items() if at >= oldest}
        return sorted(self._seen[service])
