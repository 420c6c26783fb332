"""Line coverage without the price of tracing what is not counted in the end."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import coverage


def leave_export_uncounted() -> None:
    """From now on torch's exporter, if it is imported, runs with the counting of lines paused.

    It is pure Python that takes twice as long with it.
    """
    torch = sys.modules.get("torch")
    if torch is not None and not hasattr(torch.onnx.export, "__wrapped__"):
        torch.onnx.export = uncounted(torch.onnx.export)


def uncounted_environment() -> dict[str, str]:
    """This process's environment for one that the test kills: what is counted in it would be lost with it anyway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def uncounted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # One is pytest-cov's; in a worker process of pytest another lies below it and would go on.
        paused: list[coverage.Coverage] = []
        while (counting := coverage.Coverage.current()) is not None:
            counting.stop()
            paused.append(counting)
        try:
            return function(*args, **kwargs)
        finally:
            for counting in reversed(paused):
                counting.start()

    return run
