"""How asking a model service can go wrong."""

from typing import Literal

from contracts.errors import Problem
from contracts.refusal import Refusal

ServiceName = Literal["vl_service", "video_service"]
Kind = Literal["unavailable", "busy", "misconfigured", "refused", "failed", "not_found", "conflict"]
Heard = Literal["answered", "unknown", "never"]
"""Whether the service got the request: it answered; it may have; no connection was made, so it did not."""
_NEXT_STEP: dict[Kind, str] = {
    "unavailable": "Check that it runs and is ready (its /readyz says why not), then send the request again.",
    "busy": "It has more work than it takes: send the request again later.",
    "misconfigured": "Then send the request again.",
    "refused": "Change what it names and send the request again.",
    "failed": "Its log has the cause; sending the request again is safe.",
    "not_found": "It no longer knows this render; send the request again.",
    "conflict": "Send the request again.",
}
_STATUS: dict[Kind, int] = {"unavailable": 503, "busy": 503, "refused": 422}
_VERBS: dict[Kind, str] = {"refused": "refused", "busy": "is busy", "unavailable": "is not available"}


class ServiceError(Refusal):
    """A service did not do what it was asked. `unavailable`, `busy` and `misconfigured` are no fault of the request."""

    def __init__(
        self, service: ServiceName, kind: Kind, said: str, *, reported: Problem | None = None,
        wait_s: float | None = None, heard: Heard = "answered",
    ) -> None:
        """`said` goes on a sentence that begins with the service's name; `reported` is what the service answered."""
        passes = kind in ("unavailable", "busy")
        sentence = said.rstrip(".") + "."
        if reported is not None or kind not in ("unavailable", "busy", "misconfigured"):
            sentence = f"{_VERBS.get(kind, 'failed')}: {sentence}"
        super().__init__(
            f"The {service} {sentence} {_NEXT_STEP[kind]}", log=f"{service}: {said}", status=_STATUS.get(kind, 502),
            code=f"{service}_{kind}",
            title=f"The {service} is {kind}" if passes else f"The {service} did not do its part",
            retry_after_s=round(wait_s or 5) if passes else None, errors=reported.errors if reported else None,
        )
        self.service: ServiceName = service
        self.kind: Kind = kind
        self.said = said
        self.reported = reported
        self.wait_s = wait_s
        self.heard: Heard = heard
