"""Links that open one video for whoever holds them, for a while, without a key."""

import hashlib
import time
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer

from contracts.refusal import Refusal

PREFIX = "/v1/links/"


class LinkRefused(Refusal):
    """The link was not made here; it names nothing."""

    status, code, title = 404, "link_unknown", "No such link"

    def __init__(self) -> None:
        super().__init__("This link was not made by this server.")


class LinkExpired(Refusal):
    """The link was good once."""

    status, code, title = 410, "link_expired", "The link has expired"

    def __init__(self) -> None:
        super().__init__("Ask for a new one: it is on the job, as `urls.link`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Makes and reads links. A link is good for `valid_s` to twice `valid_s`, and the same for `valid_s` in a row, so
    that looking at a job again shows what it showed before."""

    key: bytes
    valid_s: float

    def to_video(self, job_id: str) -> str:
        """The path of a link to the job's video."""
        ends_at = int((time.time() // self.valid_s + 2) * self.valid_s)
        return PREFIX + self._serializer().dumps([job_id, ends_at])

    def read(self, token: str) -> str:
        """The job of a link's token.

        Raises:
            LinkRefused: the token was not signed by this deployment.
            LinkExpired: its time is over.
        """
        try:
            job_id, ends_at = self._serializer().loads(token)
        except (BadData, ValueError, TypeError):
            raise LinkRefused from None
        if time.time() >= ends_at:
            raise LinkExpired
        return str(job_id)

    def _serializer(self) -> URLSafeSerializer:
        return URLSafeSerializer(self.key, salt="video", signer_kwargs={"digest_method": hashlib.sha256})
