"""`POST /v1/describe`: the describing service for everybody, with the picture checked first."""

import base64

from fastapi import APIRouter, Request
from pydantic import ValidationError

from contracts.describe import DescribeRequest, DescribeResponse
from gateway.intake.bodies import read_limited
from gateway.intake.uploads import decode_text
from gateway.routes.access import OpenGateway, TheCaller
from gateway.routes.openapi import problems
from gateway.threads import off_loop
from wire.problems import ProblemError, validation_problem

router = APIRouter(tags=["describe"])

_EXAMPLE = {
    "image": "data:image/jpeg;base64,/9j/4AAQ…",
    "tasks": [{"kind": "caption"}, {"kind": "question", "question": "What time of day is it?"}],
    "language": "en",
}


@router.post(
    "/v1/describe", responses=problems(413, 415, 422, 502, 503), summary="Describe a picture, or answer about it",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/DescribeRequest"}, "example": _EXAMPLE,
    }}}},
)
async def describe(request: Request, _: TheCaller, gateway: OpenGateway) -> DescribeResponse:
    """`caption`, `prompt`, `edit_suggestion` and `question`, several in one call; `image` as data URI or base64."""
    body = await read_limited(request)
    try:
        asked = await off_loop(DescribeRequest.model_validate_json, body)
    except ValidationError as error:
        problem = validation_problem(error.errors(include_url=False, include_input=False))
        raise ProblemError(422, problem.code, problem.title, problem.detail, errors=problem.errors) from None
    if asked.image is not None:
        image = await off_loop(decode_text, asked.image, gateway.settings.max_image_bytes)
        picture = await gateway.pictures.checked(image)
        encoded = await off_loop(lambda: base64.b64encode(picture.data).decode("ascii"))
        asked = asked.model_copy(update={"image": encoded})
    return await gateway.vl.describe(asked)
