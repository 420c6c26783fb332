"""`stillmotion demo`: everything from nothing to a video, on the services that run or on its own."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from contracts.jobs import GenerateOptions
from gateway.cli.client.generate import generate
from gateway.cli.client.jobs import Server
from gateway.cli.client.show import start_view
from gateway.cli.serving.health import ask_health, wait_until_ready
from gateway.cli.serving.logview import file_sink
from gateway.cli.serving.stack import (
    SERVICE_NAMES,
    ServiceSpec,
    StackError,
    StackSettings,
    served_names,
    service_specs,
    stack_environment,
)
from gateway.cli.serving.supervisor import running_stack

_JOB_S = 1800.0


def default_picture() -> Path:
    """Chelsea the cat, a photograph by Stefan van der Walt (CC0)."""
    return Path(__file__).with_name("chelsea.png")


async def demo(
    console: Console, settings: StackSettings, options: GenerateOptions, image: Path, output: Path,
    key: str | None = None, studio: bool = False,
) -> None:
    """Render `image` into `output` and say how long everything took; with `studio`, serve the page until Ctrl-C.

    Raises:
        StackError: the services cannot start or cannot become ready, such as without a model's files.
        GatewayFailure: there is no video; the sentence says why.
    """
    began = time.monotonic()
    names = served_names(settings) if studio else SERVICE_NAMES
    if studio and "studio" not in names:
        raise StackError("The page needs its own packages (pip install 'stillmotion[studio]') and a STUDIO_PORT.")
    specs = service_specs(settings, names)
    async with _served(console, settings, specs) as (url, until_failure):
        console.print(Text(f"Sending {image.name} to {url}/generate"))
        asked = time.monotonic()
        await generate(console, Server(url=url, key=key), options, image, output, _JOB_S)
        rendered_s = time.monotonic() - asked
        total_s = time.monotonic() - began
        console.print(Text.assemble(
            "Wrote ", (str(output), "bold green"), f" in {total_s:.1f} s, {rendered_s:.1f} s of them for the video."
        ))
        if studio:
            page = next(spec.url for spec in specs if spec.name == "studio")
            console.print(Text.assemble("Open ", (page, "bold"), " in a browser; Ctrl-C ends everything."))
            await until_failure()


@asynccontextmanager
async def _served(
    console: Console, settings: StackSettings, specs: list[ServiceSpec]
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """The address of a gateway that is ready, and how to stay while it runs: the running one, else one started here and
    stopped afterwards."""
    url = specs[0].url
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
        if await ask_health(http, url) is not None:
            console.print(f"Using Stillmotion as it runs at {url}", highlight=False)
            with start_view(console) as on_change:
                await wait_until_ready(http, url, on_change)
            yield url, _stay
            return
    log_path = Path(settings.stillmotion_data, "logs", "demo.log")
    console.print(f"Starting the services (log: {log_path})", highlight=False)
    with file_sink(log_path) as sink:
        async with running_stack(specs, stack_environment(specs, os.environ), sink) as stack:
            with start_view(console) as on_change:
                await stack.wait_ready(on_change)
            yield url, stack.until_failure


async def _stay() -> None:
    """Until the task is cancelled."""
    await asyncio.Event().wait()
