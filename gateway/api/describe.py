"""`POST /v1/describe`: the describing service for everybody, with the picture checked first."""

import base64

from fastapi import APIRouter, Request
from pydantic import ValidationError

from contracts.describe import DescribeResponse
from gateway.api.access import OpenGateway, TheCaller
from gateway.api.openapi import describe_body, problems
from gateway.submit.describing import read_description
from gateway.threads import off_loop
from web.problems import ProblemError, validation_problem

router = APIRouter(tags=["describe"])

@router.post(
    "/v1/describe", responses=problems(413, 415, 422, 502, 503), summary="Describe a picture, or answer about it",
    openapi_extra=describe_body(),
)
async def describe(request: Request, _: TheCaller, gateway: OpenGateway) -> DescribeResponse:
    """`caption`, `prompt`, `edit_suggestion` and `question`, several in one call; `image` as data URI or base64.

    As a form: `image` is the file; caption, prompt and three suggestions come back, and the answer to `question`.
    """
    try:
        asked = await read_description(request, gateway.settings.max_image_bytes)
    except ValidationError as error:
        problem = validation_problem(error.errors(include_url=False, include_input=False))
        raise ProblemError(422, problem.code, problem.title, problem.detail, errors=problem.errors) from None
    wanted = asked.request
    async with gateway.vl.callers_turn():
        if asked.image is not None:
            picture = await gateway.pictures.checked(asked.image)
            encoded = await off_loop(lambda: base64.b64encode(picture.data).decode("ascii"))
            wanted = wanted.model_copy(update={"image": encoded})
        return await gateway.vl.describe(wanted)
