"""One life of the worker process, seen from the HTTP process: start it, talk to it, see it die, end it."""

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from pydantic import ValidationError

from video_service.worker.messages import MAX_MESSAGE_BYTES, Command, WorkerMessage, read_message, to_line

log = logging.getLogger(__name__)

STOP_GRACE_S = 3.0
_KILL_WAIT_S = 10.0


class WorkerDied(Exception):
    """The worker process has ended without being asked to; the message names the signal or the exit status."""


class WorkerProcess:
    """A running worker. Only one coroutine at a time may `receive`."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Start `command` with its socket's descriptor as the last argument; raises `OSError` if it cannot start."""
        ours, theirs = socket.socketpair()
        with theirs:  # closed here once the child has it, so that its death is the end of our stream
            try:
                # A session of its own: Ctrl-C in a terminal reaches the HTTP process alone, which ends this one.
                process = await asyncio.create_subprocess_exec(
                    *command, str(theirs.fileno()), stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        """Queue a command; a dead worker is noticed by `receive`."""
        self._writer.write(to_line(command))

    async def receive(self) -> WorkerMessage:
        """The next message. Raises `WorkerDied`. Safe to cancel: no message is lost."""
        try:
            line = await self._reader.readuntil(b"\n")
            return read_message(line)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerDied(await self._cause_of_death()) from None
        except (asyncio.LimitOverrunError, ValidationError) as error:
            self.kill()
            raise WorkerDied(f"It sent a message that cannot be read: {error}") from error

    def kill(self) -> None:
        """SIGKILL; `receive` then raises."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """End the process in bounded time and close the socket; nothing of it is left."""
        self._writer.close()  # the worker ends itself when its socket does
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_WAIT_S):
                    await self._process.wait()

    async def _cause_of_death(self) -> str:
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                status = await self._process.wait()
        except TimeoutError:
            self.kill()
            return "It closed its connection and did not end."
        if status >= 0:
            return f"It ended with exit status {status}."
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"It was killed by {name}" + (_OOM_HINT if -status == signal.SIGKILL else ".")


_OOM_HINT = ", as the system does when memory runs out; a smaller size or fewer frames need less."
