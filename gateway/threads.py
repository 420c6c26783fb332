"""Blocking work beside the event loop."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import to_thread

P = ParamSpec("P")
T = TypeVar("T")


async def off_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `work` in a thread. anyio's threads, for the engine replaces the loop's own pool."""
    return await to_thread.run_sync(partial(work, *args, **kwargs))
