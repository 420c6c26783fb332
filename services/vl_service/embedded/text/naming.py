"""The subject in the middle of a sentence: "a tabby cat" → "the tabby cat", "两只猫" → "这两只猫"."""

import re

from contracts.describe import Language

_EN = re.compile(r"^(?:(?:(?:two|three|four) of )?some kind of|an?|some|one)\b ?")
_ZH = re.compile(r"^(?:一.)?(?:某种)?")


def definite(phrase: str, language: Language) -> str:
    """A noun phrase with its article or measure word → the phrase for a thing already named."""
    if not phrase:
        return "主体" if language == "zh" else "the subject"
    if language == "zh":
        return f"这{phrase}" if phrase[0] in "两三四" else _ZH.sub("", phrase) or phrase
    return f"the {_EN.sub('', phrase)}".strip()
