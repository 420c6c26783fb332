"""Decoding in children: what one caller sends costs the others little, and nothing outlives the gateway."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import psutil
import pytest
from PIL import Image

from gateway.submit.images.images import Decoders
from gateway.submit.images.refusals import DecodersBusy, ImageRefused
from tests.unit.gateway.submit.images.samples import LIMITS, encoded, noise

SMALL = noise(320, 240, "JPEG")
PROGRESSIVE = noise(1000, 750, "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") :][:60]


def of_scans(count: int) -> bytes:
    """A progressive JPEG that refines its last coefficients again and again, for a few bytes each time."""
    return PROGRESSIVE[:-2] + LAST_SCAN * count + b"\xff\xd9"


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    opened = Decoders(LIMITS)
    try:
        yield opened
    finally:
        await opened.aclose()
        assert children() == []


def children() -> list[psutil.Process]:
    found = psutil.Process().children()  # a stack that other tests began has decoders of its own
    return [child for child in found if "gateway.submit.images.decoder" in " ".join(child.cmdline())]


async def answer_of(decoders: Decoders, data: bytes) -> str:
    try:
        image = await decoders.check(data)
    except ImageRefused as refused:
        return refused.code
    return f"{image.width}x{image.height}"


@pytest.mark.full  # as tests/unit/gateway/edge/test_load.py has it of a whole gateway
async def test_bombs_cost_other_callers_little_time_and_the_machine_little_memory(decoders: Decoders) -> None:
    bombs = {
        "progressive, 20,000 scans": (of_scans(20_000), "image_too_costly"),
        "progressive, 200 scans": (of_scans(200), "1000x750"),
        "RGBA, 27 megapixels in 100 KB": (
            encoded(Image.new("RGBA", (5200, 5200), (9, 9, 9, 128)), "PNG"), "2048x2048"),
        "WebP of 25 megapixels": (encoded(Image.new("RGB", (5000, 5000)), "WEBP"), "image_too_many_pixels"),
    }
    await decoders.check(SMALL)
    waited, most, done = [], 0, False

    async def others() -> None:
        nonlocal most
        while not done:
            started = time.monotonic()
            await decoders.check(SMALL)
            waited.append(time.monotonic() - started)
            most = max(most, sum(child.memory_info().rss for child in children()))
            await asyncio.sleep(0.02)

    watching = [asyncio.create_task(others()) for _ in range(2)]
    got = await asyncio.gather(*(answer_of(decoders, data) for data, _ in bombs.values()))
    done = True
    await asyncio.gather(*watching)
    assert got == [right for _, right in bombs.values()]
    assert sorted(waited)[int(0.95 * len(waited))] < 1
    assert most < 300 * 2**20


async def test_a_child_that_dies_is_replaced_and_its_image_is_refused(decoders: Decoders) -> None:
    assert await answer_of(decoders, SMALL) == "320x240"
    for death, code in ((signal.SIGKILL, "image_unreadable"), (signal.SIGPROF, "image_too_costly")):
        (child,) = children()
        child.suspend()
        asking = asyncio.create_task(answer_of(decoders, SMALL))
        await asyncio.sleep(0.05)
        child.send_signal(death)
        with suppress(psutil.NoSuchProcess):
            child.resume()
        assert await asking == code
        assert await answer_of(decoders, SMALL) == "320x240"


async def test_a_caller_who_leaves_ends_the_work(decoders: Decoders) -> None:
    await decoders.check(SMALL)
    (child,) = children()
    child.suspend()
    asking = asyncio.create_task(decoders.check(SMALL))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert children() == []
    assert await answer_of(decoders, SMALL) == "320x240"


async def test_the_line_is_bounded(decoders: Decoders) -> None:
    answers = await asyncio.gather(*(decoders.check(SMALL) for _ in range(200)), return_exceptions=True)
    busy = [answer for answer in answers if isinstance(answer, DecodersBusy)]
    assert len(busy) == 200 - 130
    assert len([answer for answer in answers if not isinstance(answer, BaseException)]) == 130


@pytest.mark.slow
def test_a_child_is_gone_with_its_parent_even_in_the_middle_of_an_image() -> None:
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent("""
        import asyncio
        from tests.unit.gateway.submit.images.test_images import LIMITS, PROGRESSIVE, Decoders, of_scans
        async def main():
            decoders = Decoders(LIMITS)
            await asyncio.gather(decoders.check(PROGRESSIVE), *(decoders.check(of_scans(450)) for _ in range(4)))
        asyncio.run(main())
    """)])
    found: list[psutil.Process] = []
    while len(found) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
        found = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(found, timeout=10)
    assert alive == []


async def test_a_child_has_none_of_the_gateways_secrets(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SECRET", "a secret that is long enough")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    await decoders.check(SMALL)
    (child,) = children()
    assert not {"GATEWAY_SECRET", "AWS_SECRET_ACCESS_KEY"} & child.environ().keys()
