"""What the page says, in each language that it speaks."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.describe import Language
from studio.api import ApiFailure
from studio.tongues import ENGLISH, MANDARIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One language."""

    language: Language
    texts: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.texts[name]

    def __call__(self, name: str, **values: object) -> str:
        """The text with its blanks filled."""
        return self.texts[name].format(**values)

    def failure(self, failure: ApiFailure) -> str:
        """What went wrong, for people: the server's own sentence, or that there is no server."""
        if failure.code == "unreachable":
            return self["unreachable"]
        return str(failure)


WORDS: Mapping[Language, Words] = {
    "en": Words(language="en", texts=ENGLISH), "zh": Words(language="zh", texts=MANDARIN),
}
