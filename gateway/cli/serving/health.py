"""Asks services how they are, until they are ready or say that waiting will not help."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import httpx

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.models import Health
from gateway.cli.serving.stack import StackError

POLL_S = 0.25

OnChange = Callable[[Mapping[str, Sequence[str]]], None]  # what each service lacks, by name
Ask = Callable[[], Awaitable[Health | None]]


async def ask_health(http: httpx.AsyncClient, url: str) -> Health | None:
    """What the service at `url` says of itself, with reasons where it is not ready; `None` when it gives no answer."""
    try:
        answer = await http.get(f"{url}/readyz")
        if answer.headers.get("content-type") == PROBLEM_MEDIA_TYPE:  # it lives, and fails at telling its health
            return Health(ready=False, reasons=[Problem.model_validate_json(answer.content).detail])
        health = Health.model_validate_json(answer.content)
    except (httpx.HTTPError, ValueError):
        return None
    if health.ready and answer.status_code == httpx.codes.OK:
        return health
    return Health(ready=False, stuck=health.stuck, reasons=health.reasons or ["not ready"], details=health.details)


async def wait_until_ready(http: httpx.AsyncClient, url: str, on_change: OnChange, timeout_s: float = 600.0) -> None:
    """Wait for a gateway that somebody else runs.

    Raises:
        StackError: it is not ready in time, or says that it cannot become so.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await poll({url: partial(ask_health, http, url)}, on_change, POLL_S)
    except TimeoutError:
        raise StackError(f"{url} is not ready after {timeout_s:.0f} s; see the server's log.") from None


async def poll(asks: Mapping[str, Ask], on_change: OnChange, pause_s: float) -> None:
    """Ask all of them again and again until every one is ready; a silent one counts as starting.

    Raises:
        StackError: one is stuck; the sentence has its reasons.
    """
    said: dict[str, list[str]] | None = None
    while True:
        found = {name: await ask() for name, ask in asks.items()}
        _refuse_stuck(found)
        lacks = {name: ["starting"] if health is None else health.reasons for name, health in found.items()}
        if lacks != said:
            on_change(lacks)
            said = lacks
        if not any(lacks.values()):
            return
        await asyncio.sleep(pause_s)


def _refuse_stuck(found: Mapping[str, Health | None]) -> None:
    stuck = {name: health.reasons for name, health in found.items() if health is not None and health.stuck}
    if len(stuck) > 1:
        stuck.pop("gateway", None)  # its reasons repeat the others'
    if stuck:
        sentences = (f"{name} cannot become ready: {' '.join(reasons)}" for name, reasons in stuck.items())
        raise StackError("\n".join(sentences))
