"""The motion vocabulary: finding motions in what people write, and saying them in the trained words."""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from contracts.describe import Language
from vl_service.prompts.quotes import QUOTED

Speed = Literal["slow", "normal", "quick"]
MotionKind = Literal["camera", "object", "ambience"]
_ADVERBS = (
    r"(?:slow|slowly|gently|gradually|softly|quickly|rapidly|fast|smoothly|slightly|steadily|suddenly|swiftly|calmly|"
    r"subtly|dramatically|to|towards?|the|a|bit|little|very|all|way|camera|shot|view|its|and|moves?|moving)"
)
_WORD = re.compile("[a-z]+(?:'[a-z]+)*")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NO_CONTENT = frozenset("PZC")
"""Unicode categories of what says nothing by itself: punctuation, blanks, control characters."""
_CLAUSE_END = re.compile(r"[,.;!?，。；！？、\n]| and | then | while |然后|同时|并且")


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """A motion of the vocabulary at a speed."""

    name: str
    speed: Speed = "normal"

    @property
    def kind(self) -> MotionKind:
        """Whether the camera, an object or the air and light moves."""
        return _table().motions[self.name].kind

    def sentence(self, language: Language, it: str) -> str:
        """The sentence that the embedded checkpoint is trained on; `it` names the moving object."""
        entry = _table().motions[self.name]
        speed = "" if self.speed == "normal" else _table().speed_words[self.speed][language]
        text = entry.text[language].format(speed=speed, it=it)
        text = re.sub(" +", " ", text).strip()
        return text[0].upper() + text[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of words/motions.toml."""

    kind: MotionKind
    text: dict[Language, str]
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All of words/motions.toml, compiled."""

    motions: dict[str, Entry]
    speed_words: dict[Speed, dict[Language, str]]
    speed_patterns: dict[Speed, re.Pattern[str]]
    filler_en: frozenset[str]
    filler_zh: re.Pattern[str]
    moving: re.Pattern[str]
    negation: re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a text asks of the motion."""

    motions: tuple[Motion, ...]
    """In the order of the text."""
    refused: frozenset[str]
    """Names of motions that the text rules out: "do not zoom in" rules out both zooms."""
    says_motion: bool
    """Whether the text says what moves, in the vocabulary or in words of its own."""
    only_motion: bool
    """Whether the text says nothing beside its motions ("make it move"): canonical sentences may stand for it."""


def _either(patterns: list[str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns).replace("{adv}", _ADVERBS)


@cache
def _table() -> Table:
    data: dict[str, Any] = tomllib.loads((files("vl_service.embedded") / "words" / "motions.toml").read_text("utf-8"))
    return Table(
        motions={
            name: Entry(kind=row["kind"], text={"en": row["en"], "zh": row["zh"]},
                        pattern=re.compile(_either(row["find_en"] + row["find_zh"])))
            for name, row in data["motions"].items()
        },
        speed_words={speed: {"en": row["en"], "zh": row["zh"]} for speed, row in data["speeds"].items()},
        speed_patterns={
            speed: re.compile(rf"\b(?:{_either(row['find_en'])})\b|{_either(row['find_zh'])}")
            for speed, row in data["speeds"].items()
        },
        filler_en=frozenset(data["filler"]["en"]),
        filler_zh=re.compile("|".join(sorted(data["filler"]["zh"], key=len, reverse=True))),
        moving=_moving(data["moving"]),
        negation=re.compile(f"{data['negation']['en']}|{data['negation']['zh']}"),
    )


def _moving(row: dict[str, str]) -> re.Pattern[str]:
    stems, words, zh = "|".join(row["en_stems"].split()), row["en_words"].replace("\n", ""), row["zh"].replace("\n", "")
    endings = "s|e|es|ed|d|y|ies|ied|[bdgklmnprtvz]?(?:ing|ed)"
    return re.compile(rf"\b(?:(?:{stems})(?:{endings})?|{words})\b|{zh}")


def motion_names() -> dict[str, MotionKind]:
    """Every motion of the vocabulary and its kind."""
    return {name: entry.kind for name, entry in _table().motions.items()}


def read_request(text: str) -> Request:
    """Find the motions that a text asks for, in English or Chinese. What stands in quotation marks is not read."""
    table = _table()
    lowered = _CONTROL.sub(" ", text.lower())
    plain = QUOTED.sub(lambda match: "\x00" * len(match.group()), lowered)
    plain = re.sub(" +", " ", plain.replace("’", "'"))
    found: list[tuple[int, Motion]] = []
    refused: set[str] = set()
    rest = plain
    for name, entry in table.motions.items():
        for match in entry.pattern.finditer(rest):
            rest = rest[:match.start()] + "\x01" * len(match.group()) + rest[match.end():]
            if name != "hold_still" and table.negation.search(plain[:match.start()]):
                refused.add(name)
            else:
                found.append((match.start(), Motion(name=name, speed=_speed_near(plain, match.span()))))
    motions = _each_once([motion for _, motion in sorted(found, key=lambda pair: pair[0])])
    families = {name.split("_")[0] for name in refused}  # "no zoom" means neither way
    refused = {name for name in table.motions if name.split("_")[0] in families} - {motion.name for motion in motions}
    content = _content(rest)
    return Request(
        motions=motions, refused=frozenset(refused), only_motion=not content,
        says_motion=bool(motions) or (content and bool(table.moving.search(rest))),
    )


def _each_once(found: list[Motion]) -> tuple[Motion, ...]:
    """Each motion once, in order, at the speed that any of its mentions gives it."""
    speeds: dict[str, Speed] = {}
    for motion in found:
        if speeds.get(motion.name, "normal") == "normal":
            speeds[motion.name] = motion.speed
    return tuple(Motion(name=name, speed=speed) for name, speed in speeds.items())


def speed_asked(text: str) -> Speed:
    """The speed that a text asks for, such as "dramatic" or "calm"."""
    for speed, pattern in _table().speed_patterns.items():
        if pattern.search(text.lower()):
            return speed
    return "normal"


def _speed_near(plain: str, span: tuple[int, int]) -> Speed:
    ends = [match.end() for match in _CLAUSE_END.finditer(plain, 0, span[0])]
    following = _CLAUSE_END.search(plain, span[1])
    return speed_asked(plain[ends[-1] if ends else 0: following.start() if following else len(plain)])


def _content(rest: str) -> bool:
    """Whether the rest of a request says anything, in whatever script. What is not recognised is content."""
    table = _table()
    unknown = table.filler_zh.sub("\x01", _WORD.sub(lambda match: _unknown(match.group(), table), rest))
    if "\x00" in unknown or any(map(_says_something, unknown)):
        return True
    return "\x01" not in unknown  # nothing but punctuation, and no request that it could belong to


def _unknown(word: str, table: Table) -> str:
    return "\x01" if _is_filler(word, table) else word


def _is_filler(word: str, table: Table) -> bool:
    return word in table.filler_en or any(speed.fullmatch(word) for speed in table.speed_patterns.values())


def _says_something(char: str) -> bool:
    category = unicodedata.category(char)
    if char.isascii():
        return category[0] in "LN" or char == "$"
    return category[0] not in _NO_CONTENT or category in ("Co", "Cn")


def is_motion_word(word: str) -> bool:
    """Whether a word in lower case is one of those by which motion is asked for or told."""
    table = _table()
    return _is_filler(word, table) or table.moving.search(word) is not None
