"""Rules over a model's text: no markdown, labels or wrapping quotes, no repetition, right length, right language."""

import re
from collections.abc import Sequence

from contracts.describe import MAX_TEXT_CHARS, Language
from vl_service.embedded.text.motions import read_request

_LABEL = re.compile(
    r"^\s*(?:(?:sure|certainly|of course)[^\n:]{0,80}[:!]\s*|(?:here(?:'s| is| are)[^\n:]{0,80}:)\s*|"
    r"(?:caption|prompt|video prompt|description|answer|suggestions?)\s*:\s*|"
    r"(?:描述|提示词|视频提示词|答案|回答|建议)\s*[:：]\s*)",
    re.IGNORECASE,
)
_MARKDOWN = ((re.compile(r"```\w*"), ""), (re.compile(r"(\*\*|__)(.+?)\1"), r"\2"),
             (re.compile(r"^\s{0,3}#{1,6}\s+", re.M), ""), (re.compile(r"^\s*>\s?", re.M), ""), (re.compile(r"`"), ""))
_BULLET = re.compile(r"^\s*(?:[-*•·]|\(?\d{1,2}[.)、．])\s*")
_WRAPPERS = (('"', '"'), ("“", "”"), ("「", "」"), ("'", "'"))
_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)]*(?=\s|$)|[。！？]+[”」』）]*|$)", re.S)
_HAN = re.compile(r"[一-鿿]")
_QUOTED = re.compile("\"[^\"]*\"|“[^”]*”|「[^」]*」")


def clean(text: str) -> str:
    """Take off thinking, markdown, labels and quotation marks around the whole; lines stay lines."""
    text = re.sub(r"<think>.*?(?:</think>|$)", "", text, flags=re.S)
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    text = _LABEL.sub("", text.strip())
    for first, last in _WRAPPERS:
        inner = text[1:-1]
        wrapped = len(text) > 1 and text[0] == first and text[-1] == last
        if wrapped and first not in inner and last not in inner:
            text = inner
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def one_paragraph(text: str, language: Language) -> str:
    """Lines and bullets → one paragraph."""
    return ("" if language == "zh" else " ").join(_BULLET.sub("", line) for line in text.splitlines())


def lines(text: str, at_most: int) -> str:
    """Bulleted or numbered lines → bare lines, each once, at most so many."""
    bare = [_BULLET.sub("", line).strip() for line in text.splitlines()]
    return "\n".join(list(dict.fromkeys(line for line in bare if line))[:at_most])


def sentences(text: str) -> list[str]:
    """Split after sentence ends of either language, quotation marks included."""
    return [part.strip() for part in _SENTENCE.findall(text) if part.strip()]


def without_repetition(parts: Sequence[str]) -> list[str]:
    """Each sentence once; a model that runs in circles is cut at its first repetition."""
    seen: set[str] = set()
    kept: list[str] = []
    for part in parts:
        key = re.sub(r"\W+", "", part.lower())
        if key and key not in seen:
            seen.add(key)
            kept.append(part)
    return kept


def length(text: str, language: Language) -> int:
    """Words in English, characters in Chinese: what the limits of a profile count."""
    return len(re.sub(r"\s", "", text)) if language == "zh" else len(text.split())


def shorten(
    parts: Sequence[str], language: Language, limit: int, keep: Sequence[str] = (), user_prompt: str = ""
) -> str:
    """Join sentences up to the limit, dropping from the end.

    Sentences that hold a `keep` text and the user's own sentences always stay, whole.
    """
    joiner = "" if language == "zh" else " "
    kept = list(parts)
    own = user_prompt.lower()
    protected = [any(text in part for text in keep) or part.lower().rstrip(".。") in own for part in kept]
    for index in range(len(kept) - 1, 0, -1):
        if length(joiner.join(kept), language) <= limit:
            break
        if not protected[index]:
            del kept[index], protected[index]
    text = joiner.join(kept)
    if length(text, language) > limit and not any(protected):
        text = _cut(text, language, limit)
    return text


def _cut(text: str, language: Language, limit: int) -> str:
    """Cut inside a sentence, at a clause where there is one in the second half."""
    cut = text[:limit] if language == "zh" else " ".join(text.split()[:limit])
    clause = max(cut.rfind(mark) for mark in (",", ";", "，", "；"))
    if clause > len(cut) // 2:
        cut = cut[:clause]
    return cut.rstrip(" ,;:，；：、-") + ("。" if language == "zh" else ".")


def in_language(text: str, language: Language) -> bool:
    """Whether the text outside quotation marks is mostly in the language."""
    bare = _QUOTED.sub("", text)
    han, latin = len(_HAN.findall(bare)), len(re.findall(r"[A-Za-z]+", bare))
    return han >= latin if language == "zh" else latin >= han


def without_contradiction(parts: Sequence[str], user_prompt: str) -> list[str]:
    """Drop sentences with another camera move than the one the user asked for, or with one that the user ruled out."""
    wanted = read_request(user_prompt)
    camera = {motion.name for motion in wanted.motions if motion.kind == "camera"}

    def contradicts(part: str) -> bool:
        moves = {motion.name for motion in read_request(part).motions if motion.kind == "camera"}
        return bool(moves - camera) if camera else bool(moves & wanted.refused)

    return [part for part in parts if part in user_prompt or not contradicts(part)]


def polish_prompt(
    text: str, *, language: Language, limit: int, user_prompt: str | None, keep: Sequence[str]
) -> str:
    """A prompt of one paragraph within the limit, with every text of `keep` in it to the letter."""
    wanted = user_prompt or ""
    parts = without_repetition(sentences(one_paragraph(clean(text), language)))
    parts = without_contradiction(parts, wanted) if wanted else parts
    joined = ("" if language == "zh" else " ").join(parts)
    if any(piece not in joined for piece in keep) or (wanted and not parts):
        parts = [wanted, *parts]  # quoted words may not be lost: the user's own sentence goes first
    return shorten(parts, language, limit, keep, wanted)[:MAX_TEXT_CHARS]


def polish_text(text: str, *, language: Language, limit: int) -> str:
    """A caption or an answer: one paragraph within the limit."""
    return shorten(without_repetition(sentences(one_paragraph(clean(text), language))), language, limit)
