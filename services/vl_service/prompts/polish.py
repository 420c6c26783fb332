"""Rules over a model's text: no markdown, labels or wrapping quotes, no repetition, right length, right language."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from contracts.describe import MAX_TEXT_CHARS, Language
from vl_service.prompts.quotes import QUOTED, quoted_parts
from vl_service.prompts.shots import without_camera

_LABEL = re.compile(
    r"^\s*(?:(?:sure|certainly|of course)[^\n:]{0,80}[:!]\s*|(?:here(?:'s| is| are)[^\n:]{0,80}:)\s*|"
    r"(?:caption|prompt|video prompt|description|answer|suggestions?)\s*:\s*|"
    r"(?:描述|提示词|视频提示词|答案|回答|建议)\s*[:：]\s*)",
    re.IGNORECASE,
)
_MARKDOWN = ((re.compile(r"```\w*"), ""), (re.compile(r"(\*\*|__)(.+?)\1"), r"\2"),
             (re.compile(r"^\s{0,3}#{1,6}\s+", re.M), ""), (re.compile(r"^\s*>\s?", re.M), ""), (re.compile(r"`"), ""))
_LOOP = re.compile(r"(?<!\w)(.{3,60}?[^\d\W])([\s,;，；]+)(?:\1\2){2,}(?:\1)?", re.S)  # a model that cannot stop
_BULLET = re.compile(r"^\s*(?:[-*•·]|\(?\d{1,2}[.)、．])\s*")
_WRAPPERS = (('"', '"'), ("“", "”"), ("「", "」"), ("'", "'"))
_SENTENCE = re.compile(r".+?(?:[.!?…؟।]+[\"'”’)»]*(?=\s|$)|[。！？]+[”」』）]*|$)", re.S)
_HAN = re.compile(r"[一-鿿]")


def clean(text: str) -> str:
    """Take off thinking, markdown, labels and quotation marks around the whole; lines stay lines."""
    text = _LOOP.sub(r"\1\2", _without_thinking(text))
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    text = _LABEL.sub("", text.strip())
    for first, last in _WRAPPERS:
        inner = text[1:-1]
        wrapped = len(text) > 1 and text[0] == first and text[-1] == last
        if wrapped and first not in inner and last not in inner:
            text = inner
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _without_thinking(text: str) -> str:
    return re.sub(r"<think>.*?(?:</think>|$)", "", text, flags=re.S)


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
        # letters, marks and symbols count: words of many scripts differ in their combining marks alone
        key = "".join(char for char in part.lower() if unicodedata.category(char)[0] not in "PZC")
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
    joiner = _joiner(language)
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


def _joiner(language: Language) -> str:
    return "" if language == "zh" else " "


def _cut(text: str, language: Language, limit: int) -> str:
    """Cut inside a sentence, at a clause where there is one in the second half."""
    cut = text[:limit] if language == "zh" else " ".join(text.split()[:limit])
    clause = max(cut.rfind(mark) for mark in (",", ";", "，", "；"))
    if clause > len(cut) // 2:
        cut = cut[:clause]
    return cut.rstrip(" ,;:，；：、-") + ("。" if language == "zh" else ".")


def in_language(text: str, language: Language) -> bool:
    """Whether the text outside quotation marks is mostly in the language."""
    bare = QUOTED.sub("", text)
    han, latin = len(_HAN.findall(bare)), len(re.findall(r"[A-Za-z]+", bare))
    return han >= latin if language == "zh" else latin >= han


def polish_prompt(
    text: str, *, language: Language, limit: int, user_prompt: str | None, camera: bool = True
) -> str:
    """A prompt of one paragraph within the limit; of `camera` moves only where they are wanted.

    The user's words stay to the letter where the model wrote them so, with what they have in quotation marks in any
    case: what is too long is cut from the model's own sentences.
    """
    own = (user_prompt or "").strip()
    if not camera:
        text = without_camera(text if _without_thinking(own) != own else _without_thinking(text), language)
    for form in _forms(text, own) if own else ():
        at = next(_whole_at(own, form), None)
        if at is not None:
            return _around(form[:at], own, form[at + len(own):], language, limit)
    keep = quoted_parts(own)
    parts = without_repetition(sentences(one_paragraph(clean(text), language)))
    joined = _joiner(language).join(parts)
    if any(piece not in joined for piece in keep) or (own and not parts):
        return _around("", own, " " + joined, language, limit)  # the user's own sentence goes first
    return shorten(parts, language, limit, keep, own)[:MAX_TEXT_CHARS]


def _forms(text: str, own: str) -> tuple[str, ...]:
    """The text cleaned, and less and less so: cleaning may have touched the user's words."""
    bare = _without_thinking(text)
    return (clean(text), bare, text) if _without_thinking(own) != own else (clean(text), bare)


def _whole_at(own: str, text: str) -> Iterator[int]:
    """Where the text holds the user's words as words of their own, not within others."""
    at = text.find(own)
    while at >= 0:
        before, after = text[at - 1:at], text[at + len(own):at + len(own) + 1]
        if not (_one_word(before, own[0]) or _one_word(own[-1], after)):
            yield at
        at = text.find(own, at + 1)


def _one_word(first: str, second: str) -> bool:
    """Whether two characters side by side belong to one word; Chinese, Japanese and the like set no blanks."""
    return first.isalnum() and second.isalnum() and max(first, second) < "\u0e00"


def _around(before: str, own: str, after: str, language: Language, limit: int) -> str:
    """The user's words as they are, among those of the model's sentences that the limits leave room for."""
    stop = re.match(r"[^\w\s]*", after)
    stopped = own + (stop.group() if stop else "")
    tail = after[len(stopped) - len(own):]
    first = without_repetition(sentences(one_paragraph(clean(before), language)))
    parts = without_repetition([*first, *sentences(one_paragraph(clean(tail), language))])
    heads, tails, joiner = parts[:len(first)], parts[len(first):], _joiner(language)

    def joined() -> str:
        left = joiner.join(heads) + (" " if heads and before[-1:].isspace() else "")
        right = (" " if tails and tail[:1].isspace() else "") + joiner.join(tails)
        return left + stopped + right

    while (tails or heads) and (length(joined(), language) > limit or len(joined()) > MAX_TEXT_CHARS):
        if len(heads) == 1 and not tails and len(joined()) <= MAX_TEXT_CHARS:
            break  # the sentence that names the subject stays
        (tails or heads).pop()
    return joined()[:MAX_TEXT_CHARS]


def polish_text(text: str, *, language: Language, limit: int) -> str:
    """A caption or an answer: one paragraph within the limit."""
    return shorten(without_repetition(sentences(one_paragraph(clean(text), language))), language, limit)
