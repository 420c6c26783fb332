"""What people may call the subject of a picture: its name, its kind, what is of that kind, and other words for them."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.describe import Language
from vl_service.embedded.model.record import Record
from vl_service.embedded.vision.kinds import Kind, vocabulary

_SINGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose",
    "wolves": "wolf", "leaves": "leaf", "knives": "knife", "feet": "foot", "teeth": "tooth", "buses": "bus",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectWords:
    """Words that mean the subject: English as `singular` gives them, Chinese as they are written."""

    en: frozenset[str] = frozenset()
    zh: frozenset[str] = frozenset()
    known: bool = False
    """Whether the subject has a name or a kind; where it has none, "the animal" may well mean it."""


@cache
def question_words() -> dict[str, Any]:
    """words/questions.toml."""
    return tomllib.loads((files("vl_service.embedded") / "words" / "questions.toml").read_text("utf-8"))


def singular(word: str) -> str:
    """An English word as it is compared: without its plural, so far as a rule can tell."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:ch|sh|x|ss|z)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def says(phrase: str, name: str) -> bool:
    """Whether an English phrase says every word of the name, in singular or plural."""
    said = re.findall(r"[a-z]+", phrase.lower())
    return all(any(word.startswith(own[:max(2, len(own) - 2)]) or singular(word) == own for word in said)
               for own in re.findall(r"[a-z]+", name.lower()))


def words_of_subject(record: Record, noun_zh: str) -> SubjectWords:
    """All words for the subject of the record, whose Chinese noun, without measure word, is given (or is empty)."""
    kinds = _kinds(record)
    table = vocabulary()
    names = [record.name, record.kind, record.colour.split(" ")[-1]]
    groups = {kind.group for kind in kinds}
    also: list[str] = [record.kind, *record.name.split()[-1:]]
    chinese = {noun_zh[at:] for at in range(len(noun_zh))}
    for kind in kinds:
        names += [kind.en, *(table.class_en[number].split()[-1] for number in kind.classes)]
        chinese |= {kind.zh, *(table.class_zh.get(number, "") for number in kind.classes)}
        also.append(kind.en)
    for group in groups:
        names.append(table.groups[group].en)
        chinese.add(table.groups[group].zh)
        also.append(group)
    english = [word for name in names for word in re.findall(r"[a-z]+", name.lower())]
    return SubjectWords(
        en=frozenset(singular(word) for word in (*english, *_also(also, "en").split())),
        zh=frozenset(word for word in (*chinese, *_also(also, "zh").split()) if word),
        known=bool(record.name or record.kind),
    )


def _also(names: list[str], language: Language) -> str:
    return " ".join(question_words()["also"][language].get(name, "") for name in names)


def _kinds(record: Record) -> list[Kind]:
    """The ImageNet kinds that the subject may be of: its own, or of an unnamed one all of its group."""
    table = vocabulary()
    own = [kind for kind in table.kinds if record.name and (
        record.name == kind.en or record.name in (table.class_en[number] for number in kind.classes))]
    if own or record.name:
        return own or [kind for kind in table.kinds if kind.en == record.kind]
    return [kind for kind in table.kinds if record.kind and record.kind in (kind.en, table.groups[kind.group].en)]
