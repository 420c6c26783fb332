"""Bodies that never end, bodies of bulk and image bombs against a gateway process of its own: others wait no second."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.unit.gateway.model_services import Services
from tests.unit.gateway.submit.images.samples import encoded
from tests.unit.gateway.submit.images.test_images import of_scans

pytestmark = pytest.mark.slow

_BODIES, _BODY_BYTES = 24, 12 * 2**20  # where each was held in memory, 288 MB


@pytest.fixture
async def gateway(tmp_path: Path, services: Services) -> AsyncIterator[tuple[httpx.AsyncClient, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220 - it is to run beside the test
        [sys.executable, "-m", "gateway"], stderr=subprocess.DEVNULL, env={
            **os.environ, "GATEWAY_PORT": str(port), "STILLMOTION_DATA": str(tmp_path),
            "GATEWAY_VL_URL": services.vl_url, "GATEWAY_VIDEO_URL": services.video_url,
        },
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        try:
            async with asyncio.timeout(90):
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get("/readyz")).is_success:
                            break
                    await asyncio.sleep(0.2)
            yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


async def hold_a_body(port: int, kind: bytes) -> asyncio.StreamWriter:
    """All of a body but its last byte."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        % (kind, _BODY_BYTES)
    )
    for _ in range(_BODY_BYTES // 2**20 - 1):
        writer.write(bytes(2**20))
        await writer.drain()
    return writer


async def took(client: httpx.AsyncClient, number: int, image: bytes | None = None) -> list[float]:
    """The seconds of so many small requests, one after another."""
    seconds = []
    more = {} if image is None else {"image": base64.b64encode(image).decode()}
    for n in range(number):
        began = time.monotonic()
        answer = await client.post("/generate", json={"prompt": f"kite {n}", **more})
        assert answer.status_code == 202, answer.text
        seconds.append(time.monotonic() - began)
    return sorted(seconds)


async def test_unfinished_bodies_and_bulk_cost_no_memory_and_keep_nobody_waiting(
    gateway: tuple[httpx.AsyncClient, psutil.Process]
) -> None:
    client, process = gateway
    usual_s = (await took(client, 10))[-1]
    before, port = process.memory_info().rss, client.base_url.port
    assert port is not None
    kinds = [b"application/json", b"multipart/form-data; boundary=X"]
    held = await asyncio.gather(*(hold_a_body(port, kinds[n % 2]) for n in range(_BODIES)))
    assert process.memory_info().rss - before < 60 * 2**20
    bulk = [
        b"{" + b",".join(b'"f%d":%d' % (n, n) for n in range(300_000)) + b"}",
        b'{"prompt": [' + b"0," * 5_000_000 + b"0]}",
        b'{"metadata": ' + b"[" * 4_000_000,
    ]
    sending = [asyncio.create_task(client.post("/generate", content=body, headers={"Content-Type": "application/json"}))
               for body in bulk * 2]
    seconds = await took(client, 40)
    answers = await asyncio.gather(*sending)
    assert {answer.status_code for answer in answers} <= {413, 422}
    assert seconds[37] < 1.0 + 4 * usual_s
    assert process.memory_info().rss - before < 150 * 2**20
    assert process.memory_info().rss < 500 * 2**20
    for writer in held:
        writer.transport.abort()


async def test_image_bombs_cost_little_memory_and_keep_no_other_image_waiting(
    gateway: tuple[httpx.AsyncClient, psutil.Process]
) -> None:
    client, process = gateway
    image = encoded(Image.linear_gradient("L").resize((320, 240)).convert("RGB"), "PNG")
    usual_s = (await took(client, 5, image))[-1]
    most_bytes = 0

    async def keep_weighing() -> None:
        nonlocal most_bytes
        while True:
            with suppress(psutil.NoSuchProcess):
                family = [process, *process.children(recursive=True)]
                most_bytes = max(most_bytes, sum(one.memory_info().rss for one in family))
            await asyncio.sleep(0.05)

    weighing = asyncio.create_task(keep_weighing())
    heavy = encoded(Image.new("RGBA", (5200, 5200), (9, 9, 9, 99)), "PNG")
    bombs = [of_scans(20_000), heavy, heavy]  # the first costs the four seconds that a decoder has
    sending = [asyncio.create_task(client.post("/v1/files", files={"file": ("a", bomb)}, timeout=240))
               for bomb in bombs]
    seconds = await took(client, 20, image)
    answers = await asyncio.gather(*sending)
    weighing.cancel()
    assert {answer.status_code for answer in answers} <= {201, 422, 503}
    assert seconds[18] < 1.0 + 4 * usual_s
    assert most_bytes < 500 * 2**20, "the gateway and its decoders together"
