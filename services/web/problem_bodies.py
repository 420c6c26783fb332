"""Errors that a framework answers in plain text, said as problem+json like every other error."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import Problem
from web.problems import code_of, problem_response

_MAX_TEXT_BYTES = 2000
_OF_THE_OLD_BODY = frozenset({b"content-type", b"content-length"})


class ProblemBodiesMiddleware:
    """Replaces the body of plain-text errors, such as those of file responses (400, 416) and body limits (413)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        held: Message | None = None
        text = bytearray()

        async def converted(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_plain_error(message):
                held = message
                return
            if held is None:
                await send(message)
                return
            text.extend(message.get("body", b"")[:_MAX_TEXT_BYTES])
            if not message.get("more_body", False):
                await _say(held, bytes(text), scope, receive, send)

        return await self.app(scope, receive, converted)


def _is_plain_error(message: Message) -> bool:
    return message["status"] >= 400 and Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


async def _say(held: Message, text: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    status: int = held["status"]
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    said = text[:_MAX_TEXT_BYTES].decode(errors="replace").strip()
    problem = Problem(status=status, code=code_of(status), title=phrase, detail=said or phrase)
    response = problem_response(problem)
    kept = [(name, value) for name, value in held["headers"] if name.lower() not in _OF_THE_OLD_BODY]
    response.raw_headers.extend(kept)
    await response(scope, receive, send)
