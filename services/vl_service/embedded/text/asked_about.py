"""What a question is about: the subject, a part of the picture, or something else by its name.

A question is stripped of the words that any question may have; what is then left over names something else.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from contracts.describe import Language
from vl_service.embedded.text.subject_words import SubjectWords, question_words, singular

Kind = Literal["setting", "unknown", "how many", "colours", "colour", "light", "sharp", "where", "describe", "what"]
Sort = Literal["subject", "generic", "broad", "part", "place", "filler", "other"]
_HAN = re.compile(r"[一-鿿]")
_IDIOMS = re.compile(r"\b(?:right (?:here|there|now)|is that right|all right|(?:are|is) left)\b")
# "what flower is this?": whatever it is taken for, the answer names what is seen
_TAKEN_FOR = re.compile(
    r"\b(?:what|which)\b(?! colou?r)[a-z ]*? "
    r"(?=(?:is|are|could|might|may|can) (?:this|that|it|these|those|shown|here)\b)|"
    r"(?<=是什么)[一-鿿]{1,4}(?=[？?。]?$)|"
    r"(?<=是哪种)[一-鿿]{1,4}(?=[？?。]?$)")
_FAR = ("sky", "background", "ground", "greenery")
_OF_ONE_THING = ("colour", "where", "how many")
_WHERE_IT_IS = {"on", "in", "at", "under", "near", "beside", "behind", "by", "above", "below", "inside", "among"}
_PLACE_OF = re.compile(
    r"\b(?:top|bottom|middle|centre|center|edges?|back|front|side|half|part|left|right) of (?:the|this|that)$")
_MAIN = re.compile(
    r"\b(?:main|central|principal|primary) (?:thing|object|item)|\bsubject\b|主体|主要的?(?:东西|物|事物|对象)")
_OF_PICTURE = re.compile(r"(?:图片|图像|图|画面|照片|画)的?(?=最?[上下左右中四]+[方部边侧面半间角周])")
_PICTURE = re.compile(r"\b(?:picture|photo|photograph|image|scene)\b(?!'s)|图|画面|照片|整体|整个")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a question speaks of beside what it asks."""

    subject: bool = False
    """The subject, by a name for it, or as the main thing."""
    generic: bool = False
    """Some thing, by no name."""
    parts: tuple[str, ...] = ()
    """Parts of the picture, see [parts] in words/questions.toml."""
    places: tuple[str, ...] = ()
    """upper, left, edges …"""
    head: Sort = "filler"
    """What the question is mainly about, of "the cat on the grass" and "the grass under the cat"."""
    other: bool = False
    """Something else has been named, or a part of the subject, such as its eyes."""
    picture: bool = False
    """The picture as such."""


@cache
def _table(kind: Kind, language: Language) -> dict[str, tuple[Sort, str]]:
    """Word → what sort of word it is in a question of this kind, and the name of a part or place."""
    words = question_words()
    fillers = words["filler"][language]
    rows: list[tuple[Sort, str, str]] = [
        ("filler", "", fillers.get(kind, "")),
        *(("part", name, text) for name, text in words["parts"][language].items()),
        *(("place", name, text) for name, text in words["places"][language].items()),
        ("generic", "", words["generic"][language]), ("broad", "", words["broad"][language]),
        ("filler", "", fillers["any"]),
    ]
    return {word: (sort, name) for sort, name, text in reversed(rows) for word in text.split()}


def asked_about(asked: str, kind: Kind, subject: SubjectWords) -> About:
    """What a question in lower case with single blanks is about, given what kind of question it is."""
    kind = "colour" if kind == "colours" else kind
    if kind == "what":
        asked = _TAKEN_FOR.sub(lambda match: "what " if match.group().startswith(("what", "which")) else "", asked)
    found = _read_chinese(asked, kind, subject) if _HAN.search(asked) else _read_english(asked, kind, subject)
    heads: list[Sort] = ["filler", *(sort for sort, _ in found if sort != "filler" and sort != "place")]
    sorts = {sort for sort, _ in found}
    places = tuple(dict.fromkeys(name for sort, name in found if sort == "place"))
    return About(
        subject="subject" in sorts or _MAIN.search(asked) is not None,
        generic="generic" in sorts or ("broad" in sorts and (kind == "what" or not subject.known)),
        parts=tuple(dict.fromkeys(name for sort, name in found if sort == "part")),
        places=places,
        head=heads[-1] if _HAN.search(asked) else heads[:2][-1],
        other="other" in sorts or ("broad" in sorts and not (kind == "what" or not subject.known)),
        picture=_PICTURE.search(asked) is not None,
    )


def _read_english(asked: str, kind: Kind, subject: SubjectWords) -> list[tuple[Sort, str]]:
    words = re.findall(r"[a-z]+(?:'[a-z]+)?", _IDIOMS.sub(" ", asked.replace("’", "'")))
    table = _table(kind, "en")
    found: list[tuple[Sort, str]] = []
    for at, word in enumerate(words):
        bare = re.sub(r"(?:'s|n't|'re|'ll|'d|'ve)$", "", word)
        sort, name = table.get(bare, ("other", bare))
        following = {table.get(after, ("other", ""))[0] for after in words[at + 1:]}
        if word.endswith("'s") and "part" in following:
            sort = "filler"  # "the cat's background" is the background
        elif sort in ("other", "part", "generic", "broad") and (bare in subject.en or singular(bare) in subject.en):
            sort, name = ("other" if _PLACE_OF.search(" ".join(words[:at])) else "subject"), bare
            if sort == "subject" and kind in _OF_ONE_THING and words[at + 1:at + 2] and words[at + 1] in _WHERE_IT_IS:
                return [*found, (sort, name)]  # "the cat on the sofa" is the cat
        if name in _FAR and words[at + 1:at + 2] and words[at + 1] in _WHERE_IT_IS:
            return [*found, (sort, name)]  # "the sky behind the cat" is the sky; water may be in a glass
        found.append((sort, name))
    return found


def _read_chinese(asked: str, kind: Kind, subject: SubjectWords) -> list[tuple[Sort, str]]:
    known = _table(kind, "zh")
    table: dict[str, tuple[Sort, str]] = {
        **known, **{word: ("subject", word) for word in subject.zh if len(word) > 1 or word not in known}}
    either = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    if kind in _OF_ONE_THING:  # "沙发上的猫" is the cat
        far = [word for word, (sort, name) in known.items() if sort == "part" and name in _FAR]
        names = "|".join(map(re.escape, (*subject.zh, *far)))
        asked = re.sub(rf"[^，,左右]*[上下里中旁边前后面]的(?=(?:{names}))", "", asked)
    asked = _OF_PICTURE.sub("", asked)
    pattern = re.compile(either)
    found: list[tuple[Sort, str]] = []
    at = 0
    while at < len(asked):
        match = pattern.match(asked, at)
        if match is not None:
            found.append(table[match.group()])
        elif _HAN.match(asked[at]):
            found.append(("other", asked[at]))
        at = match.end() if match is not None else at + 1
    return found
