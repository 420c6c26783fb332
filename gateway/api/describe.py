"""`POST /v1/describe`: the describing service for everybody, with the pictures checked first; dialogues go on here."""

from datetime import UTC, datetime
from typing import Annotated

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse

from contracts.describe import DescribeRequest, DescribeResponse
from contracts.openai.chat import ConversationDeleted, ConversationView, DialogueResponse, SaidMessage
from gateway.api.access import OpenGateway, TheCaller, WhileAnswered
from gateway.api.openapi import describe_body, problems
from gateway.runtime import Gateway
from gateway.services.verdicts import judged, wishes_of, with_verdicts
from gateway.submit.describing import Asked, read_description
from gateway.submit.dialogue import Begun
from web.chat.completions import begun as once_begun
from web.chat.dialogues import as_events, whole
from web.edge import while_connected

router = APIRouter(tags=["describe"])

ConversationId = Annotated[str, Path(description="The conversation's `id`.", max_length=64)]


@router.post(
    "/v1/describe", responses=problems(404, 409, 413, 415, 422, 429, 502, 503), openapi_extra=describe_body(),
    summary="Describe a picture, answer about it, or talk about it", response_model=DescribeResponse | DialogueResponse,
    dependencies=[WhileAnswered],
)
async def describe(request: Request, caller: TheCaller, gateway: OpenGateway) -> Response:
    """`caption`, `prompt`, `edit_suggestion` and `question`, several in one call; `image` as https address, data
    URI or base64.

    As a form: `image` is the file; caption, prompt and three suggestions come back, and the answer to `question`.

    With `messages` instead it is a dialogue: `reply` answers the last message, `prompt` writes the video prompt that
    the dialogue led to. It goes on by its `conversation`, and `POST /generate` makes the video of its last prompt.
    """
    async with read_description(request, gateway.intake) as asked:
        if not isinstance(asked, Asked):
            message = await gateway.dialogues.begin(asked, caller)
            return await _converse(message, request, gateway)
        wanted = await _with_checked_picture(asked, gateway)
    async with gateway.vl.callers_turn():
        described = await while_connected(request, _described(wanted, gateway))
    return Response(described.model_dump_json(), media_type="application/json")


async def _described(wanted: DescribeRequest, gateway: Gateway) -> DescribeResponse:
    if not gateway.settings.policy:
        return await gateway.vl.describe(wanted)
    tasks = with_verdicts(wanted.tasks, wishes_of(wanted.tasks))
    described = await gateway.vl.describe(wanted.model_copy(update={"tasks": tasks}))
    results, warnings = judged(described.results, len(wanted.tasks))
    return described.model_copy(update={"results": [
        result.model_copy(update={"warnings": [*result.warnings, *warnings]}) for result in results]})


async def _converse(message: Begun, request: Request, gateway: Gateway) -> Response:
    told = gateway.dialogues.answer(message)
    if not message.request.stream:
        answer = await while_connected(request, whole(told))
        return Response(answer.model_dump_json(), media_type="application/json")
    events = as_events(await while_connected(request, once_begun(told)))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/v1/conversations/{conversation_id}", responses=problems(404, 422), summary="One conversation")
async def get_conversation(
    conversation_id: ConversationId, caller: TheCaller, gateway: OpenGateway
) -> ConversationView:
    """What was said, and the last prompt."""
    found = await off_loop(gateway.dialogues.store.get, conversation_id, caller.owner)
    return ConversationView(
        id=found.id, created_at=datetime.fromtimestamp(found.created_at, UTC),
        used_at=datetime.fromtimestamp(found.used_at, UTC), prompt=found.prompt, job_id=found.job_id,
        messages=[SaidMessage(role=turn.role, text=turn.text, pictures=turn.num_images) for turn in found.turns])


@router.delete("/v1/conversations/{conversation_id}", responses=problems(404, 422), summary="Delete a conversation")
async def delete_conversation(
    conversation_id: ConversationId, caller: TheCaller, gateway: OpenGateway
) -> ConversationDeleted:
    """It is gone with its pictures; videos that were made of it stay."""
    await gateway.dialogues.forget(conversation_id, caller.owner)
    return ConversationDeleted(id=conversation_id)


async def _with_checked_picture(asked: Asked, gateway: Gateway) -> DescribeRequest:
    if asked.image is None:
        return asked.request
    picture = await gateway.images.at(asked.image)
    return asked.request.model_copy(update={"image": picture.data})
