"""What travels between an HTTP process and its worker."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from web.worker.errors import WorkerDied
from web.worker.link import MAX_MESSAGE_BYTES, Cancel, Work, WorkerProcess, _Incoming, from_body, to_frame

SENT = [Cancel(id=1), Work(id=2, payload=bytes(1 << 20)), Cancel(id=3), Work(id=4, payload="")]


async def heard(pieces: list[bytes]) -> AsyncIterator[object]:
    """What the incoming side of the socket makes of pieces that arrive one after another, until it raises."""
    incoming = _Incoming()
    for piece in pieces:
        while piece:
            buffer = incoming.get_buffer(-1)
            taken = min(len(buffer), len(piece))
            buffer[:taken] = piece[:taken]
            incoming.buffer_updated(taken)
            piece = piece[taken:]
    incoming.eof_received()
    while True:
        try:
            yield from_body(await incoming.body())
        except EOFError:
            return


@pytest.mark.parametrize("largest", [1, 7, 4096, 1 << 22])
def test_messages_arrive_whole_however_they_were_cut(largest: int) -> None:
    stream = b"".join(map(to_frame, SENT if largest > 7 else [SENT[0], SENT[2], SENT[3]]))
    sizes, pieces = random.Random(largest), []
    while stream:
        size = sizes.randint(1, largest)
        pieces.append(stream[:size])
        stream = stream[size:]

    async def all_heard() -> list[object]:
        return [message async for message in heard(pieces)]

    assert asyncio.run(all_heard()) == (SENT if largest > 7 else [SENT[0], SENT[2], SENT[3]])


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 2**64 - 1])
def test_a_worker_that_says_no_length_of_a_message_is_dead(length: int) -> None:
    async def said() -> str:
        worker = await WorkerProcess.start(["python3", "-c", (
            f"import os, sys, time; os.write(int(sys.argv[1]), ({length}).to_bytes(8, 'big')); time.sleep(60)")])
        try:
            return str(await _death(worker))
        finally:
            await worker.stop()

    assert f"a message of {length} bytes" in asyncio.run(said())


async def _death(worker: WorkerProcess) -> Exception:
    with pytest.raises(WorkerDied) as died:
        await worker.receive()
    with pytest.raises(WorkerDied):
        await worker.receive()
    return died.value
