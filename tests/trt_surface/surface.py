"""The recorded surfaces, and what of a signature matters to a caller."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FILES = {
    "tensorrt-10": "tensorrt-cu12-10.12.0.36.json",
    "tensorrt-11": "tensorrt-cu13-11.4.0.106.json",
    "tensorrt-rtx": "tensorrt-rtx-cu13-1.7.1.116.json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The classes of one package, as `record.py` wrote them."""

    name: str
    version: str
    classes: dict[str, Any]

    def properties(self, kind: str) -> set[str]:
        return set(self.classes[kind].get("properties", ()))

    def methods(self, kind: str) -> set[str]:
        return set(self.classes[kind].get("methods", ()))

    def overloads(self, kind: str, method: str) -> list[dict[str, bool]]:
        """For each way to call it the parameters after `self`, true beside those that may be left out."""
        return [parameters(signature) for signature in self.classes[kind]["methods"][method]]


@cache
def read_surface(name: str) -> Surface:
    found = json.loads((FOLDER / FILES[name]).read_text(encoding="utf-8"))
    return Surface(name=name, version=found["version"], classes=found["classes"])


def parameters(signature: str) -> dict[str, bool]:
    """Of `name(self: X, a: A, b: B = 1) -> C`: {"a": False, "b": True}."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    named = (re.match(r"(\w+): .*?(=|$)", part.strip()) for part in _split(inside))
    return {match[1]: bool(match[2]) for match in named if match is not None and match[1] != "self"}


def _split(text: str) -> Iterator[str]:
    """At the commas outside all brackets."""
    depth, start = 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(<") - (letter in "])>" and text[index - 1] != "-")
        if letter == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]
