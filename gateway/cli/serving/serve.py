"""`stillmotion serve`: the services in the foreground, until a signal or a failure ends them all."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console

from gateway.cli.client.show import waiting_for
from gateway.cli.serving.logview import LogSink, json_sink, readable_sink
from gateway.cli.serving.stack import ServiceName, StackSettings, service_specs, stack_environment
from gateway.cli.serving.supervisor import running_stack

LogFormat = Literal["auto", "readable", "json"]


async def serve(console: Console, settings: StackSettings, names: Sequence[ServiceName], log_format: LogFormat) -> None:
    """Run the named services until this task is cancelled.

    Raises:
        StackError: a service cannot start or be kept running; every other one has been ended.
    """
    from gateway.edge.server import raise_descriptor_limit  # brings uvicorn, which no other command needs

    raise_descriptor_limit()  # for the services too, which inherit it
    specs = service_specs(settings, names)
    sink = _sink(console, log_format)

    def on_change(lacks: Mapping[str, Sequence[str]]) -> None:
        if waiting := waiting_for(lacks):
            sink("stillmotion", f"waiting for {waiting}")

    async with running_stack(specs, stack_environment(specs, os.environ), sink) as stack:
        await stack.wait_ready(on_change)
        front = specs[0]
        page = next((f"page: {spec.url}; " for spec in specs if spec.name == "studio"), "")
        pages = f" ({page}API pages: {front.url}/docs; Ctrl-C ends it)" if front.name == "gateway" else ""
        sink("stillmotion", f"{'Stillmotion' if pages else front.name} is ready: {front.url}{pages}")
        await stack.until_failure()


def _sink(console: Console, log_format: LogFormat) -> LogSink:
    if log_format == "readable" or (log_format == "auto" and console.is_terminal):
        return readable_sink(console)
    return json_sink(console.file)
