"""The mood that an instruction asks for, as a sentence about the light."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.describe import Language


@cache
def _moods() -> list[dict[str, Any]]:
    return tomllib.loads((files("vl_service.embedded") / "words" / "moods.toml").read_text("utf-8"))["mood"]


def mood_sentence(instruction: str, language: Language) -> str:
    """A sentence on the mood that an instruction asks for, or nothing."""
    lowered = instruction.lower()
    return next((row[language] for row in _moods() if re.search(row["find"], lowered)), "")
