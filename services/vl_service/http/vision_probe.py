"""Whether the vision role that a language role looks through is there."""

import time

import httpx
from pydantic import ValidationError

from contracts.models import Health
from vl_service.settings import Settings

_FRESH_S = 1.0
_TIMEOUT_S = 2.0


class VisionProbe:
    """Asks `VL_VISION_URL` whether it is ready, once a second at most; used on one event loop."""

    def __init__(self, settings: Settings) -> None:
        """In other roles there is nothing to ask."""
        self._url = settings.vision_url if settings.role == "language" else None
        self._asked_at, self._away = float("-inf"), None

    async def away(self) -> str | None:
        """Why no picture can be seen now; None when one can."""
        if self._url is None:
            return None
        if time.monotonic() - self._asked_at > _FRESH_S:
            self._away = await self._ask()
            self._asked_at = time.monotonic()
        return self._away

    async def _ask(self) -> str | None:
        try:
            async with httpx.AsyncClient(base_url=self._url or "", timeout=_TIMEOUT_S, trust_env=False) as http:
                answer = await http.get("/readyz")
            if answer.status_code == 200:
                return None
            reasons = Health.model_validate_json(answer.content).reasons
        except (httpx.TransportError, ValidationError) as error:
            return f"The vision service at {self._url} does not answer ({type(error).__name__})."
        return f"The vision service at {self._url} is not ready: {' '.join(reasons)}"
