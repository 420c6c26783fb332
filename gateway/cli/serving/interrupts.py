"""JobQueue Ctrl-C, SIGTERM and a closed terminal into one ordinary cancellation of the main task."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


class Interrupted(Exception):
    """A signal ended the work; everything was cleaned up."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


def run_interruptible(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` to its end, cancelling it at every signal; a second one reaches its clean-up as a second cancel.

    Raises:
        Interrupted: a signal came and `work` ended because of it.
    """
    received: list[int] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        def on_signal(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
        await work()

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if not received:
            raise
        raise Interrupted(received[0]) from None
