"""`POST /v1/describe`: the describing service for everybody, with the picture checked first."""

from fastapi import APIRouter, Request

from contracts.describe import DescribeRequest, DescribeResponse
from gateway.api.access import OpenGateway, TheCaller
from gateway.api.openapi import describe_body, problems
from gateway.runtime import Gateway
from gateway.submit.describing import Asked, read_description

router = APIRouter(tags=["describe"])


@router.post(
    "/v1/describe", responses=problems(413, 415, 422, 502, 503), summary="Describe a picture, or answer about it",
    openapi_extra=describe_body(),
)
async def describe(request: Request, _: TheCaller, gateway: OpenGateway) -> DescribeResponse:
    """`caption`, `prompt`, `edit_suggestion` and `question`, several in one call; `image` as data URI or base64.

    As a form: `image` is the file; caption, prompt and three suggestions come back, and the answer to `question`.
    """
    async with read_description(request, gateway.intake) as asked:
        wanted = await _with_checked_picture(asked, gateway)
    return await gateway.vl.describe(wanted)


async def _with_checked_picture(asked: Asked, gateway: Gateway) -> DescribeRequest:
    if asked.image is None:
        return asked.request
    picture = await gateway.pictures.checked(asked.image)
    return asked.request.model_copy(update={"image": picture.data})
