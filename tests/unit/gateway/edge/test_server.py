"""A client that keeps the server waiting is let go, and keeps no other one waiting; one that is only slow is not."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.app import create_app
from gateway.edge.server import BoundedServer, Patience, connections_within, make_server
from tests.unit.gateway.conftest import gateway_settings
from tests.unit.gateway.model_services import Services

HURRIED = Patience(head_s=1.0, body_s=1.0, answer_s=1.0)
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UPLOAD = HEAD + b"Content-Length: 9000000\r\n\r\n{"


@dataclass(frozen=True, kw_only=True)
class Served:
    port: int
    server: BoundedServer
    client: httpx.AsyncClient

    async def connect(self, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for data in sent:
            writer.write(data)
        return reader, writer


@asynccontextmanager
async def served(
    folder: Path, services: Services, max_connections: int = 100, patience: Patience = HURRIED
) -> AsyncIterator[Served]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    server = make_server(
        create_app(gateway_settings(folder, services)), host="127.0.0.1", port=port, max_connections=max_connections,
        patience=patience,
    )
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn sets an attribute and has no event to wait for
                await asyncio.sleep(0.01)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            yield Served(port=port, server=server, client=client)
    finally:
        server.should_exit = True
        await serving


def test_the_event_loop_is_asyncio_s_own_whatever_else_is_installed() -> None:
    """uvicorn would take uvloop where it is, on which nothing here is tested."""
    config = make_server(FastAPI(), host="127.0.0.1", port=0, max_connections=1).config
    assert config.loop == "asyncio"



async def trickle(writer: asyncio.StreamWriter, data: bytes, every_s: float = 0.1) -> None:
    try:
        for _ in range(300):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(every_s)
    except ConnectionError:
        pass


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        received = b""
        with suppress(ConnectionResetError):
            while more := await reader.read(65536):
                received += more
        return received


BEGINNINGS: dict[str, tuple[bytes, bytes, bytes]] = {
    "nothing": (b"", b"", b""), "a head, letter by letter": (b"GET / HTTP/1.1\r\nX-A: ", b"a", b" 408 "),
    "a head, line by line": (b"GET / HTTP/1.1\r\n", b"X-A: a\r\n", b" 408 "),
    "a body, byte by byte": (UPLOAD, b" ", b" 408 "), "a body that stops": (UPLOAD, b"", b" 408 "),
    "a body in chunks": (UPLOAD.replace(b"Content-Length: 9000000", b"Transfer-Encoding: chunked")[:-1], b"1\r\n \r\n",
                         b" 408 "),
    "a second request": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n", b"X-A: a\r\n", b" 408 "),
    "a body that nobody reads": (
        b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n", b" ", b" 404 "),
}


async def test_who_sends_too_slowly_is_told_and_let_go(
    tmp_path: Path, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path, services) as stack:

        async def one(name: str) -> None:
            beginning, more, told = BEGINNINGS[name]
            reader, writer = await stack.connect(beginning)
            trickling = asyncio.create_task(trickle(writer, more))
            began = time.monotonic()
            assert told in await until_closed(reader), name
            assert time.monotonic() - began < 20, name  # it would go on for half a minute
            trickling.cancel()

        await asyncio.gather(*map(one, BEGINNINGS))
        assert (await stack.client.get("/livez")).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_is_slow_but_steady_and_who_waits_for_an_answer_are_served(
    tmp_path: Path, services: Services
) -> None:
    services.script.may_go_on.clear()
    async with served(tmp_path, services) as stack:
        body = b'{"prompt": "a kite"' + b" " * 30_000 + b"}"
        reader, writer = await stack.connect(HEAD, b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
        for at in range(0, len(body), 1000):  # 3 s at 10 KB/s
            writer.write(body[at : at + 1000])
            await asyncio.sleep(0.1)
        assert b" 202 " in await until_closed(reader)
        waited = await stack.client.post("/generate", json={"prompt": "a"}, headers={"Prefer": "wait=4"})
        assert waited.status_code == 202
        services.script.may_go_on.set()


async def test_who_does_not_take_the_answer_is_let_go(tmp_path: Path, services: Services) -> None:
    async with served(tmp_path, services) as stack:
        silent = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", stack.port))
        silent.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        await until_connections(stack, 1)
        await until_connections(stack, 0)
        silent.close()


async def test_answers_that_nobody_takes_make_room(tmp_path: Path, services: Services) -> None:
    async with served(tmp_path, services, max_connections=10, patience=Patience(answer_s=12.0)) as stack:
        silent = [await asyncio.to_thread(socket.create_connection, ("127.0.0.1", stack.port)) for _ in range(20)]
        for connection in silent:
            connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        await until_connections(stack, 10)
        assert (await stack.client.post("/generate", json={"prompt": "a kite"})).status_code == 202
        for connection in silent:
            connection.close()


async def until_connections(stack: Served, number: int) -> None:
    async with asyncio.timeout(30):
        while len(stack.server.server_state.connections) != number:  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nX-A: ", UPLOAD], ids=["silent", "heads", "bodies"])
async def test_more_connections_than_there_may_be_keep_nobody_out(
    tmp_path: Path, services: Services, caplog: pytest.LogCaptureFixture, beginning: bytes
) -> None:
    """Twice as many connections as there may be, renewed when they are closed, beside a caller's requests."""
    patience = Patience(head_s=15.0, body_s=2.0)
    async with served(tmp_path, services, max_connections=40, patience=patience) as stack:

        async def hold() -> None:
            while True:
                try:
                    reader, _ = await stack.connect(beginning)
                    await reader.read()
                except ConnectionError:
                    pass
                await asyncio.sleep(3)

        began = time.monotonic()
        await stack.client.post("/generate", json={"prompt": "a kite"})
        usual_s = time.monotonic() - began  # of this machine, with whatever else it does

        holding = [asyncio.create_task(hold()) for _ in range(75)]
        await asyncio.sleep(1.0)
        took: list[float] = []
        statuses: list[int] = []
        for n in range(20):
            began = time.monotonic()
            base = stack.client.base_url
            async with httpx.AsyncClient(base_url=base, timeout=10, trust_env=False, verify=False) as client:
                statuses.append((await client.post("/generate", json={"prompt": f"kite {n}"})).status_code)
            took.append(time.monotonic() - began)
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
        for task in holding:
            task.cancel()
        await asyncio.wait(holding)
    assert statuses == [202] * 20
    assert sorted(took)[18] < 1.0 + 4 * usual_s


@pytest.mark.parametrize("kind", ["JSON", "form"])
async def test_a_hang_up_in_an_upload_is_no_error(
    tmp_path: Path, services: Services, caplog: pytest.LogCaptureFixture, picture: Callable[..., bytes], kind: str
) -> None:
    head = {"JSON": b"application/json", "form": b"multipart/form-data; boundary=X"}[kind]
    async with served(tmp_path, services) as stack:
        for sent in (1, 100, 200_000):
            _, writer = await stack.connect(UPLOAD.replace(b"application/json", head)[:-1], b" " * sent)
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.transport.abort()
        await asyncio.sleep(0.3)
        assert (await stack.client.get("/v1/jobs")).json()["data"] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_connections_leave_descriptors_for_all_else() -> None:
    assert connections_within(65_536, 1000) == 1000
    assert connections_within(1024, 1000) == 384
    assert connections_within(100, 1000) == 8
