"""Whether the model knows the language of what a user wrote. It knows English and Chinese."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from vl_service.embedded.text.motions import is_motion_word
from vl_service.prompts.quotes import QUOTED

_LATIN_WORD = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)*")
_JUDGED_FROM = 3  # words; of fewer nobody could tell a language from a name
_LEAST_SHARE = 0.25  # of known words in English that the model was not taught; other Latin languages have about 0.1
_LEAST_SHARE_ACCENTED = 0.5
_KNOWN_SCRIPTS = ("LATIN", "CJK")
_NO_SCRIPT = ("MODIFIER", "FULLWIDTH", "HALFWIDTH", "MATHEMATICAL", "SUPERSCRIPT", "SUBSCRIPT", "MASCULINE", "FEMININE")

Knows = Callable[[str], bool]
"""Whether a word is in the model's vocabulary."""


def is_unread(text: str, knows: Knows) -> bool:
    """Whether the text is, at least in part, in a language that the model does not know.

    What stands in quotation marks is to be shown, not to be read.
    """
    bare = QUOTED.sub(" ", text)
    if any(_foreign(char) for char in bare):
        return True
    words = [word for word in _LATIN_WORD.findall(bare.lower()) if _script(word[0]) == "LATIN"]
    if len(words) < _JUDGED_FROM:
        return False
    known = sum(knows(word) or is_motion_word(word) for word in words)
    accented = any(not word.replace("’", "'").isascii() for word in words)
    return known < len(words) * (_LEAST_SHARE_ACCENTED if accented else _LEAST_SHARE)


def any_known(text: str, knows: Knows) -> bool:
    """Whether the model knows a single word, or Chinese character, of the text."""
    return any(map(knows, (*_LATIN_WORD.findall(text.lower()), *re.findall("[一-鿿]", text))))


@lru_cache(maxsize=4096)
def _foreign(char: str) -> bool:
    return char.isalpha() and not char.isascii() and _script(char) not in (*_KNOWN_SCRIPTS, *_NO_SCRIPT)


def _script(char: str) -> str:
    """The first word of the character's name, which for a letter is its script."""
    return unicodedata.name(char, "").partition(" ")[0]
