"""OpenAI's chat completions over the vision-language services: its SDK is a client of this server."""

from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from contracts.chat import ChatRequest
from contracts.openai.chat import ChatCompletion
from contracts.refusal import Refusal
from gateway.api.access import OpenGateway, TheCaller, WhileAnswered
from gateway.api.openapi import chat_body, openai_errors
from gateway.runtime import Gateway
from gateway.submit.describing import read_completion
from web.chat.completions import Completion, Reply, begun
from web.edge import while_connected

router = APIRouter(prefix="/v1/chat", tags=["OpenAI chat"])


@router.post(
    "/completions", response_model=ChatCompletion, responses=openai_errors(400, 404, 413, 429, 500, 502, 503),
    openapi_extra=chat_body(), summary="Talk about pictures", dependencies=[WhileAnswered],
)
async def create_chat_completion(request: Request, _: TheCaller, gateway: OpenGateway) -> Response:
    """As in OpenAI's API, with the vision-language model of this server: text and `image_url` (a data URI, or an https
    URL where this server fetches from its host), `stream`, `stop`, `max_tokens`, `seed`, `temperature`, `top_p`.
    """
    async with read_completion(request, gateway.intake) as asked:
        await _check_model(asked.request.model, gateway)
        pictures = [(await gateway.images.at(given)).data for given in asked.pictures]
    reply = _reply(asked.chat.with_pictures(pictures), asked.request.model, gateway)
    completion = Completion(model=asked.request.model)
    if not asked.request.stream:
        whole = await while_connected(request, completion.whole(reply))
        return Response(whole.model_dump_json(), media_type="application/json")
    options = asked.request.stream_options
    chunks = completion.chunks(
        await while_connected(request, begun(reply)),
        include_usage=options is not None and options.include_usage)
    return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _reply(request: ChatRequest, model: str, gateway: Gateway) -> Reply:
    async with gateway.vl.callers_turn(), aclosing(gateway.vl.chat(request, model)) as reply:
        async for piece in reply:
            yield piece


async def _check_model(wanted: str, gateway: Gateway) -> None:
    known = [model.id for model in await gateway.catalog.known_vl_models()]
    if known and wanted not in known:
        raise Refusal(
            f"There is no vision-language model {wanted!r} here; use one of: {', '.join(known)}.",
            status=404, code="model_not_found", title="No such model")
