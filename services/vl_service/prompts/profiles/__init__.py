"""How each family of video models wants its prompt written. The wording is data: one TOML file a profile."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from contracts.describe import Language
from contracts.refusal import Refusal

Part = Literal["photo", "shot", "motion", "ambience", "setting", "light", "camera"]


class UnknownProfileError(Refusal):
    """No such profile; the message names those there are."""

    status, code, title = 422, "unknown_profile", "Unknown profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A prompt style."""

    name: str
    parts: tuple[Part, ...]
    """What a prompt by rule says, in this order; prompt.py writes each part."""
    languages: tuple[Language, ...]
    """That the video model understands; the first stands in for the others."""
    invents_camera: bool
    """Whether a camera move may be written where nobody asked for one."""
    max_words: int
    """Of an English prompt."""
    max_chars: int
    """Of a Chinese prompt."""
    guide: dict[Language, str]
    """How to write, told to a language model."""

    def language_for(self, asked: Language) -> Language:
        """The language to write the prompt in."""
        return asked if asked in self.languages else self.languages[0]


def _profile(name: str, data: dict[str, Any]) -> Profile:
    return Profile(
        name=name, parts=tuple(data["parts"]), languages=tuple(data["languages"]),
        invents_camera=data["invents_camera"], max_words=data["max_words"], max_chars=data["max_chars"],
        guide={language: data["guide"][language].strip() for language in data["languages"]},
    )


@cache
def profiles() -> dict[str, Profile]:
    """Every profile by name."""
    found = sorted((entry for entry in files(__name__).iterdir() if entry.name.endswith(".toml")), key=lambda e: e.name)
    return {
        entry.name.removesuffix(".toml"): _profile(
            entry.name.removesuffix(".toml"), tomllib.loads(entry.read_text("utf-8")))
        for entry in found
    }


def profile_named(name: str) -> Profile:
    """The profile of that name, or `UnknownProfileError`."""
    try:
        return profiles()[name]
    except KeyError:
        raise UnknownProfileError(f"There is no profile {name!r}; there are: {', '.join(profiles())}.") from None
