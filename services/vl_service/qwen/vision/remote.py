"""The language role's eyes: features of pictures from a service in the vision role, over HTTP."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import urllib3
from pydantic import ValidationError

from contracts.describe import CacheResult
from contracts.errors import Problem
from contracts.refusal import Refusal
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.vision.features import NEVER, Expected, Features, FeaturesRefusedError, read_features
from vl_service.qwen.vision.wire import CACHE_HEADER, FEATURES_PATH
from vl_service.settings import Settings
from web.calls import outgoing_headers

log = logging.getLogger(__name__)

_CONNECT_S = 2.0
_CONNECTIONS = 32  # kept for the next call; more may be open at one time
_PAUSES_S = (0.2, 0.5, 1.0)  # before the next tries of what may pass at once


class VisionUnavailableError(Refusal):
    """The vision service is away, full, or not ready; nothing has changed."""

    status, code, title = 503, "unavailable", "The vision service is away"


class VisionMismatchError(Refusal):
    """The vision service runs another checkpoint, or in another form; the message names what differs."""

    status, code, title = 503, "vision_mismatch", "The vision service does not fit"


class RemoteVision:
    """Asks `VL_VISION_URL`. Connections are kept open.

    By urllib3, since megabytes go each way: httpx's parser takes them in pieces, at 10 ms of CPU a call.
    """

    engine = "remote"
    reason = "VL_ROLE=language: seen by VL_VISION_URL"

    def __init__(self, settings: Settings, expected: Expected, *, sleep: Callable[[float], None] = time.sleep) -> None:
        token = settings.internal_token.get_secret_value() if settings.internal_token else None
        self._url, self._expected, self._timeout_s = settings.vision_url, expected, settings.vision_timeout_s
        self._sleep = sleep
        self._headers = {"Content-Type": "image/x-portable-pixmap"} | (
            {"Authorization": f"Bearer {token}"} if token else {})
        self._http = urllib3.connection_from_url(settings.vision_url or "", maxsize=_CONNECTIONS)

    def features_of(self, picture: DecodedImage, deadline: Deadline = NEVER) -> Features:
        """See `features.Vision`.

        Raises:
            VisionUnavailableError: no answer after a few tries; who waits may ask again.
            VisionMismatchError: its features are not what this language model reads.
            DeadlineExceededError: the caller's deadline passed.
            Refusal: it refused the picture.
        """
        body = _as_ppm(picture)
        until = min(deadline.at, time.monotonic() + self._timeout_s)
        for pause_s in _PAUSES_S:
            try:
                return self._read(self._ask(body, until))
            except VisionUnavailableError:
                deadline.check()
                if time.monotonic() + pause_s >= until:
                    raise
            self._sleep(pause_s)
        return self._read(self._ask(body, until))

    def _ask(self, body: bytes, until: float) -> urllib3.BaseHTTPResponse:
        """An answer with features."""
        left_s = max(0.001, until - time.monotonic())
        try:
            answer = self._http.urlopen(
                "POST", FEATURES_PATH, body, self._headers | outgoing_headers(), retries=False, redirect=False,
                timeout=urllib3.Timeout(left_s, connect=min(left_s, _CONNECT_S)))
        except urllib3.exceptions.HTTPError as error:
            raise self._away(f"does not answer ({type(error).__name__})") from error
        if answer.status == 200:
            return answer
        told = _problem_of(answer)
        if answer.status in (401, 403):
            raise VisionMismatchError(f"The vision service at {self._url} refuses this one: {told.detail}")
        if answer.status >= 500 or answer.status == 429 or told.code == "http_error":
            raise self._away(f"cannot see now: {told.detail}", told.retry_after_s or 2)
        raise Refusal(told.detail, status=told.status, code=told.code, title=told.title)

    def _away(self, what: str, retry_after_s: int = 2) -> VisionUnavailableError:
        return VisionUnavailableError(f"The vision service at {self._url} {what}.", retry_after_s=retry_after_s)

    def _read(self, answer: urllib3.BaseHTTPResponse) -> Features:
        try:
            features = read_features(answer.data, self._expected)
        except FeaturesRefusedError as error:
            raise VisionMismatchError(f"The vision service at {self._url} gives features of {error}.") from error
        found = answer.headers.get(CACHE_HEADER, "miss")
        return replace(features, cache=cast(CacheResult, found if found in ("memory", "disk") else "miss"))


def _as_ppm(picture: DecodedImage) -> bytes:
    """The pixels as they are: to pack them as PNG takes longer than to send them."""
    width, height = picture.rgb.size
    return b"".join([b"P6\n%d %d\n255\n" % (width, height), picture.rgb.tobytes()])


def _problem_of(answer: urllib3.BaseHTTPResponse) -> Problem:
    try:
        return Problem.model_validate_json(answer.data)
    except ValidationError:
        return Problem(status=max(400, answer.status), code="http_error", title="No problem body",
                       detail=f"HTTP {answer.status}")
