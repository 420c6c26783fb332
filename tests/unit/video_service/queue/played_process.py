"""A worker's process that a test plays."""

import asyncio

from web.worker.errors import WorkerDied
from web.worker.link import Cancel, Command, Message, Note, Work


class PlayedProcess:
    """A worker process that says what the rules say. In the place of `WorkerProcess`."""

    alive: "PlayedProcess | None" = None
    pid = 1

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message | WorkerDied] = asyncio.Queue()
        self.loaded = False
        self.work: Work | None = None
        self.left, self.ended = set[int](), set[int]()
        self.canceled = False

    @classmethod
    async def start(cls, _: object) -> "PlayedProcess":
        cls.alive = cls()
        return cls.alive

    def send(self, command: Command) -> None:
        if isinstance(command, Work):
            assert self.loaded, "work for a worker that is not loaded"
            assert self.work is None, "two pieces of work at once"
            self.work, self.canceled = command, False
            self.left, self.ended = set(), set()
        elif isinstance(command, Note):
            self.left.add(command.value)
        elif isinstance(command, Cancel) and self.work is not None:
            self.canceled = command.id == self.work.id

    async def receive(self) -> Message:
        message = await self._messages.get()
        if isinstance(message, WorkerDied):
            raise message
        return message

    def say(self, message: Message) -> None:
        self._messages.put_nowait(message)

    def kill(self) -> None:
        self._messages.put_nowait(WorkerDied("It was killed."))
        self.work = None

    async def stop(self) -> None:
        if PlayedProcess.alive is self:
            PlayedProcess.alive = None
