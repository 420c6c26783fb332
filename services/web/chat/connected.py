"""Work for a client who may leave before it is done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from contracts.refusal import Refusal

Answer = TypeVar("Answer")


class ClientGone(Refusal):
    """Nobody reads the answer any more."""

    status, code, title = 499, "client_closed_request", "Nobody waits"

    def __init__(self) -> None:
        super().__init__("The connection was closed; a job that was accepted goes on.")


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of `work`, which is stopped when the client of `request` (whose body was read) hangs up.

    Raises:
        ClientGone: it did.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
