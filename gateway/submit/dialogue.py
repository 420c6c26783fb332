"""One message of a dialogue: what was said before, the new pictures, the answers, and what is kept of them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from anyio.to_thread import run_sync as off_loop
from pydantic import ValidationError

from contracts.chat import ChatRequest, TextPart, Turn
from contracts.openai.chat import ConversedRequest, DialogueResponse, turns_of
from gateway.auth.callers import Caller
from gateway.services.vl import Describers
from gateway.storage.files import LocalFiles
from gateway.submit.conversations import Conversation, ConversationStore, new_conversation_id
from gateway.submit.describing import AskedDialogue
from gateway.submit.fields import FieldsRefused
from gateway.submit.images.check import CheckedImage
from gateway.submit.images.images import Images
from web.chat.completions import Reply
from web.chat.dialogues import Told, converse, requests_for

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 60.0
_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A message as it goes to the model."""

    requests: list[ChatRequest]
    request: ConversedRequest
    owner: str
    before: Conversation | None
    turns: tuple[Turn, ...]
    pictures: tuple[CheckedImage, ...]
    """The new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogues:
    """Carries dialogues on."""

    store: ConversationStore
    files: LocalFiles
    images: Images
    describers: Describers

    async def begin(self, asked: AskedDialogue, caller: Caller) -> Begun:
        """Find what was said before, and check the pictures.

        Raises:
            ConversationNotFound, FieldsRefused, and what `Images.at` raises.
        """
        request = asked.request
        before = None
        if request.conversation is not None:
            before = await off_loop(self.store.get, request.conversation, caller.owner)
        turns = (before.turns if before else ()) + turns_of(request.messages)
        try:
            requests = requests_for(request, turns)
        except ValidationError as error:  # too much together with what was said before
            raise FieldsRefused(error) from None
        earlier = [
            (await self.images.read(before.id, stored, ())).data for stored in before.pictures] if before else []
        new = tuple([await self.images.at(given) for given in asked.pictures])
        shown = [*earlier, *(picture.data for picture in new)]
        return Begun(
            requests=[one.with_pictures(shown) for one in requests], request=request, owner=caller.owner,
            before=before, turns=turns, pictures=new)

    async def answer(self, begun: Begun) -> Told:
        """The answers, as `web.chat.dialogues.converse` tells them; kept once they are complete."""
        async with self.describers.callers_turn(), aclosing(converse(begun.requests, self._ask)) as told:
            async for piece in told:
                yield await self._kept(begun, piece) if isinstance(piece, DialogueResponse) else piece

    async def _ask(self, request: ChatRequest) -> Reply:
        return self.describers.chat(request)

    async def forget(self, conversation_id: str, owner: str) -> None:
        """Remove it with its pictures; raises `ConversationNotFound`."""
        await off_loop(self.store.remove, conversation_id, owner)
        await self.remove_files([conversation_id])

    async def keep_expiring(self) -> None:
        """For ever: remove what nobody has used for long."""
        while True:
            try:
                await self.remove_files(await off_loop(self.store.expire))
            except Exception:
                log.exception("letting go of old conversations failed; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def remove_files(self, conversation_ids: Sequence[str]) -> None:
        """The pictures of conversations that are gone."""
        for conversation_id in conversation_ids:
            await off_loop(self.files.remove_job, conversation_id)

    async def _kept(self, begun: Begun, answer: DialogueResponse) -> DialogueResponse:
        if not begun.request.store:
            return answer
        before, now = begun.before, time.time()
        conversation = before or Conversation(
            id=new_conversation_id(), owner=begun.owner, created_at=now, used_at=now, turns=(), pictures=(),
            prompt=None, job_id=None)
        prompts = [result.text for result in answer.results if result.kind == "prompt"]
        said = "\n\n".join(result.text for result in answer.results)
        stored = [await self.images.store(conversation.id, _new_name(), picture) for picture in begun.pictures]
        conversation = replace(
            conversation, used_at=now, turns=(*begun.turns, Turn(role="assistant", content=(TextPart(text=said),))),
            pictures=(*conversation.pictures, *stored), prompt=prompts[-1] if prompts else conversation.prompt)
        await self.remove_files(await off_loop(lambda: self.store.keep(conversation, before=before)))
        return answer.model_copy(update={"conversation": conversation.id})


def _new_name() -> str:
    """Of its own for each picture: another message may be answered meanwhile, and be the one kept."""
    return f"picture_{secrets.token_hex(8).translate(_AS_LETTERS)}"
