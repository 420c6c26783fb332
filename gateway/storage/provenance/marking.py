"""A video marked as made by AI: the label, then a C2PA manifest signed over all of it."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from gateway.storage.provenance.certificate import Certificate
from gateway.storage.provenance.label import AI_MADE, write_label

log = logging.getLogger(__name__)

PRODUCT, VERSION = "Stillmotion", "0.1.0"
RENDER_ASSERTION = "org.stillmotion.render"
MEDIA_TYPE = "video/mp4"


class NotMarked(Exception):
    """The file could not be signed; nothing of it is to be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a video was made, as far as its file is to say it."""

    job_id: str
    model: str
    revision: str
    input_sha256: str | None
    prompt: str | None


class Marker:
    """Marks videos; its methods block, and compute outside the interpreter's lock."""

    def __init__(self, certificate: Certificate, *, producer: str, with_prompt: bool) -> None:
        self._certificate = certificate
        self._producer = producer
        self._with_prompt = with_prompt

    def mark(self, source: BinaryIO, target: BinaryIO, made: Made) -> None:
        """Write `source`, an MP4 open for reading and writing, to `target`, an empty file open likewise.

        Raises:
            NotMarked: it is no MP4, or cannot be signed.
        """
        import c2pa  # half a second and 50 MB that only the first video costs

        when = datetime.now(UTC)
        write_label(source, tool=f"{PRODUCT} {VERSION}", when=when, producer=self._producer, made_as=made.job_id)
        source.seek(0)
        known = self._certificate
        try:
            info = c2pa.C2paSignerInfo(known.algorithm.encode(), known.chain, known.key, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder.from_json(self._manifest(made, when)) as builder:
                builder.sign(signer, MEDIA_TYPE, source, target)
        except c2pa.C2paError as error:
            log.exception("the video of %s could not be signed", made.job_id, extra={"job_id": made.job_id})
            raise NotMarked(str(error)) from error

    def _manifest(self, made: Made, when: datetime) -> dict[str, Any]:
        told = {"model": made.model, "revision": made.revision, "input_sha256": made.input_sha256,
                "prompt": made.prompt if self._with_prompt else None}
        created = {
            "action": "c2pa.created", "digitalSourceType": AI_MADE, "when": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "softwareAgent": {"name": made.model, "version": made.revision},
        }
        return {
            "claim_generator_info": [{"name": PRODUCT, "version": VERSION}], "format": MEDIA_TYPE,
            "title": f"{made.job_id}.mp4",
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
                {"label": RENDER_ASSERTION, "data": {name: value for name, value in told.items() if value is not None}},
            ],
        }
