"""torch's table of ONNX functions, made once for all exports of a process instead of once for each."""

import functools
import importlib
import sys
from typing import Any


def keep_export_registry() -> None:
    """From now on torch's exporter copies the table of an opset that it made before.

    It parses the source of five hundred functions for each: two thirds of a second, as long as a small graph takes.
    """
    if "graphs.export" not in sys.modules:
        return
    module = importlib.import_module("torch.onnx._internal.exporter._registration")
    registry: Any = getattr(module, "ONNXRegistry", None)
    if registry is None or hasattr(registry, "made_anew"):
        return
    registry.made_anew = functools.cache(registry.from_torchlib)

    def copied(opset_version: int) -> Any:
        kept, found = registry.made_anew(opset_version=opset_version), registry()
        found._opset_version = kept._opset_version
        # An export adds its own functions to the lists.
        found.functions = {target: list(functions) for target, functions in kept.functions.items()}
        return found

    registry.from_torchlib = staticmethod(copied)
