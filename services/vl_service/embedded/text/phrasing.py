"""A name that is only likely, said as likely; and one that is only guessed, said beside what is known."""

import re

from contracts.describe import Language
from vl_service.prompts.polish import sentences

_HEDGE: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"\bprobably\b|\bunsure\b|\bcannot\b", re.IGNORECASE),
    "zh": re.compile("可能|不确定|无法|看不出"),
}
_IT_IS = re.compile(r"^(?:It is|They are|Yes, I see) ")


def hedged(text: str, language: Language) -> str:
    """The text with a "probably" in its first sentence, which names the subject."""
    first = next(iter(sentences(text)), "")
    if not first or _HEDGE[language].search(first):
        return text
    if language == "en":
        if _IT_IS.match(text):
            return _IT_IS.sub("Probably ", text)
        return f"Probably {text[0].lower()}{text[1:]}"
    if text.startswith("是的，"):
        return text.replace("我看到", "我看到的可能是", 1)
    return text.replace("是", "可能是", 1) if "是" in first else f"可能是{text}"


_UNSURE: dict[Language, re.Pattern[str]] = {"en": re.compile(r"\bunsure\b"), "zh": re.compile("不确定")}
_PERHAPS: dict[Language, str] = {"en": ", perhaps {}", "zh": "，可能是{}"}
_PAUSES = ".,;。，；"


def guessed(text: str, phrase: str, guess: str, language: Language) -> str:
    """The text with the guess in its first sentence, if that says that it is unsure.

    After the phrase for the subject, "some kind of animal, perhaps a mouse", or where that is not said at its end.
    """
    first = next(iter(sentences(text)), "")
    if not guess or not _UNSURE[language].search(first):
        return text
    perhaps = _PERHAPS[language].format(guess)
    found = first.lower().find(phrase.lower()) if phrase else -1
    at = found + len(phrase) if found >= 0 else len(first.rstrip(_PAUSES))
    pause = "" if first[at:at + 1] in (*_PAUSES, "") else perhaps[0]
    return text.replace(first, f"{first[:at]}{perhaps}{pause}{first[at:]}", 1)
