"""How each family of video models wants its prompt written. The wording is data: one TOML file a profile.

A folder of the user's (`VL_PROFILES`) adds more and replaces ours by name; a file there that says `extends = "wan2.2"`
has what it leaves out from that one. Its `templates.toml` adds templates, which requests name, and its `policy.toml` is
what verdicts are held to.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from contracts.describe import MAX_TEMPLATE_CHARS, Language
from contracts.models import TemplateInfo
from contracts.refusal import Refusal
from vl_service.prompts.shots import FIELDS, Field, Shot

Part = Literal["photo", "shot", "motion", "ambience", "setting", "light", "camera"]
_TEMPLATES, _POLICY = "templates.toml", "policy.toml"
_KNOWN = {"parts", "languages", "invents_camera", "max_words", "max_chars", "guide", "fields", "fixed_camera",
          "negative_prompt", "examples", "extends", "like"}


class UnknownProfileError(Refusal):
    """No such profile; the message names those there are."""

    status, code, title = 422, "unknown_profile", "Unknown profile"


class UnknownTemplateError(Refusal):
    """No such template; the message names those there are."""

    status, code, title = 422, "unknown_template", "Unknown template"


class ProfileError(ValueError):
    """A file of the user's cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A prompt style."""

    name: str
    like: str
    """Which of ours it is, or is written as by the embedded checkpoint, which was trained on those."""
    parts: tuple[Part, ...]
    """What a prompt by rule says, in this order; embedded/text/prompt.py writes each part."""
    fields: tuple[Field, ...]
    """What a language model is asked for as JSON, and in which order it is said; none: it writes the text itself."""
    languages: tuple[Language, ...]
    """That the video model understands; the first stands in for the others."""
    invents_camera: bool
    """Whether a camera move may be written where nobody asked for one."""
    fixed_camera: bool
    """Whether a prompt says that the camera stays fixed where nothing else was asked for."""
    max_words: int
    """Of an English prompt."""
    max_chars: int
    """Of a Chinese prompt."""
    guide: Mapping[Language, str]
    """How to write, told to a language model."""
    negative_prompt: str
    """What the video model is to keep away from, where it takes such words."""
    examples: tuple[Shot, ...]

    def language_for(self, asked: Language) -> Language:
        """The language to write the prompt in."""
        return asked if asked in self.languages else self.languages[0]

    def limit(self, language: Language) -> int:
        """Of a prompt: words, in Chinese characters."""
        return self.max_chars if language == "zh" else self.max_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a video goes, whoever is in it, by language; `title`: what people call it, where that is not its name."""

    words: Mapping[Language, str]
    title: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """All profiles and templates, by name, and the policy."""

    profiles: Mapping[str, Profile]
    templates: Mapping[str, Template]
    policy: Mapping[Language, str]
    hash: str
    """Of all files: other words, other texts."""


def read_library(folder: Path | None = None) -> Library:
    """Ours, and those in the folder. Raises `ProfileError`."""
    ours = {entry.name: entry.read_text("utf-8") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")}
    read = hashlib.sha256(repr(sorted(ours.items())).encode())
    templates, policy = tomllib.loads(ours.pop(_TEMPLATES)), _policy(tomllib.loads(ours.pop(_POLICY)))
    found = _read(ours, {}, "the package")
    if folder is not None:
        if not folder.is_dir():
            raise ProfileError(f"VL_PROFILES={folder} is no folder")
        theirs = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.toml"))}
        read.update(repr(sorted(theirs.items())).encode())
        templates |= _parsed(theirs.pop(_TEMPLATES, ""), folder / _TEMPLATES)
        policy = _policy(_parsed(theirs.pop(_POLICY, ""), folder / _POLICY)) or policy
        found |= _read(theirs, found, str(folder))
    return Library(
        profiles=dict(sorted(found.items())), policy=policy, hash=read.hexdigest()[:16],
        templates={name: _template(name, data) for name, data in templates.items()})


@cache
def _library() -> list[Library]:
    return [read_library()]


def use_profiles(folder: Path | None) -> None:
    """Read those of the folder, too: once for a process, when it begins. Raises `ProfileError`."""
    _library()[0] = read_library(folder)


def profiles() -> Mapping[str, Profile]:
    """Every profile by name."""
    return _library()[0].profiles


def profile_named(name: str) -> Profile:
    """The profile of that name, or `UnknownProfileError`."""
    try:
        return profiles()[name]
    except KeyError:
        raise UnknownProfileError(f"There is no profile {name!r}; there are: {', '.join(profiles())}.") from None


def template_named(name: str, language: Language) -> str:
    """Its words, in the language where it has it. Raises `UnknownTemplateError`."""
    templates = _library()[0].templates
    if name not in templates:
        raise UnknownTemplateError(f"There is no template {name!r}; there are: {', '.join(sorted(templates))}.")
    words = templates[name].words
    return words.get(language) or next(iter(words.values()))


def templates() -> list[TemplateInfo]:
    """Every template, as models list them: ours first, in the order of the files."""
    return [TemplateInfo(name=name, title=dict(one.title)) for name, one in _library()[0].templates.items()]


def policy(language: Language) -> str:
    """What verdicts are held to, in the language where there is that."""
    rules = _library()[0].policy
    return (rules.get(language) or next(iter(rules.values()))).strip()


def wording() -> str:
    """A hash of all profiles, templates and the policy."""
    return _library()[0].hash


def _parsed(text: str, where: object) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where} is no TOML: {error}") from error


def _policy(data: Mapping[str, Any]) -> Mapping[Language, str]:
    if not data.keys() <= set(get_args(Language)) or not _texts(data):
        raise ProfileError(f"{_POLICY} needs text by language, such as en = \"…\"")
    return {language: data[language] for language in get_args(Language) if language in data}


def _template(name: str, data: Any) -> Template:
    words = dict(data) if isinstance(data, dict) else {}
    title = words.pop("title", {})
    if not words or not _texts(words):
        raise ProfileError(f"the template {name!r} needs text by language, such as en = \"…\"")
    if not isinstance(title, dict) or not _texts(title):
        raise ProfileError(f"the title of the template {name!r} needs text by language, such as {{ en = \"…\" }}")
    if not 1 <= len(name) <= MAX_TEMPLATE_CHARS:
        raise ProfileError(f"the name of the template {name!r} has to have 1 to {MAX_TEMPLATE_CHARS} characters")
    return Template(words=words, title=title)


def _texts(data: Mapping[str, Any]) -> bool:
    return all(isinstance(text, str) for text in data.values())


def _read(texts: Mapping[str, str], known: Mapping[str, Profile], where: str) -> dict[str, Profile]:
    found: dict[str, Profile] = {}
    for file, text in texts.items():
        name = file.removesuffix(".toml")
        data = _parsed(text, f"{where}/{file}")
        try:
            base = known[data["extends"]] if "extends" in data else None
            found[name] = _profile(name, data, base)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"the profile {where}/{file} cannot be used: {type(error).__name__}: {error}") from error
    return found


def _profile(name: str, data: Mapping[str, Any], base: Profile | None) -> Profile:
    if unknown := data.keys() - _KNOWN:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")

    def of(key: str, default: Any = None) -> Any:
        if key in data:
            return data[key]
        if base is not None:
            return getattr(base, key)
        if default is None:
            raise KeyError(key)
        return default

    languages = _checked("languages", of("languages"), get_args(Language))
    guide = dict(of("guide"))
    return Profile(
        name=name, like=of("like", name), languages=languages,
        parts=_checked("parts", of("parts"), get_args(Part)), fields=_checked("fields", of("fields", ()), FIELDS),
        invents_camera=bool(of("invents_camera")), fixed_camera=bool(of("fixed_camera", False)),
        max_words=int(of("max_words")), max_chars=int(of("max_chars")),
        guide={language: guide[language].strip() for language in languages},
        negative_prompt=str(of("negative_prompt", "")),
        examples=tuple(one if isinstance(one, Shot) else Shot(**one) for one in of("examples", ())),
    )


def _checked(key: str, values: Sequence[str], known: Sequence[str]) -> tuple[Any, ...]:
    if strange := [value for value in values if value not in known]:
        raise ValueError(f"{key}: {', '.join(strange)} is none of {', '.join(known)}")
    return tuple(values)
