"""`GET /v1/links/{token}`: a video for whoever holds a signed link to it."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse, Response

from gateway.api.access import OpenGateway
from gateway.api.media.content import FILE_RESPONSES, serve
from gateway.api.openapi import problems
from gateway.auth.links import LinkRefused

router = APIRouter(prefix="/v1/links", tags=["jobs"])


@router.get(
    "/{token}", response_class=FileResponse, summary="The MP4, by a signed link",
    responses={**FILE_RESPONSES, **problems(404, 409, 410, 412, 416, 422)},
)
async def get_linked(
    token: Annotated[str, Path(max_length=512, description="The end of a job's `urls.link`.")], request: Request,
    gateway: OpenGateway,
) -> Response:
    """The bytes, with `ETag` and `Range`. Needs no key: the signature is one, for this video and for a while."""
    links = gateway.ledger.links
    if links is None:
        raise LinkRefused
    job = await gateway.ledger.get(links.read(token))
    return await serve(job, "video", request, gateway)
