"""Text ↔ token numbers: whole words of a closed list, Chinese characters, and letters for any other word."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPECIALS = (
    "<pad>",
    "<eos>",
    "<cap>",
    "<spell>",
    "</spell>",
    "<sure>",
    "<likely>",
    "<unsure>",
    "<kind>",
    "<count>",
    "<colour>",
    "<place>",
    "<size>",
    "<setting>",
    "<end>",
    "<en>",
    "<zh>",
    "<caption>",
    "<edits>",
    "<question>",
    "<answer>",
    "<prompt:embedded>",
    "<prompt:wan2.1>",
    "<prompt:wan2.2>",
    "<prompt:turbowan>",
    "<prompt:i2vgen-xl>",
    "<photo>",
    "<shot>",
    "<motion>",
    "<ambience>",
    "<around>",
    "<light>",
    "<camera>",
)
LETTERS = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'-’.,;:!?%()\n\"/&")
_PIECES = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’-][A-Za-zÀ-ɏ]+)*|\d|\n|[^\sA-Za-zÀ-ɏ\d]")
_WORD = re.compile(r"[A-Za-zÀ-ɏ]")
_NO_SPACE_BEFORE = frozenset(".,;:!?%)\n。，、；：！？（）」』”")
_NO_SPACE_AFTER = frozenset("(\n。，、；：！？（）「『“")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """A closed vocabulary; position in `pieces` is the token's number."""

    pieces: tuple[str, ...]
    numbers: dict[str, int]

    def encode(self, text: str) -> list[int]:
        """Any text → tokens; a word outside the list is spelt, a character outside it is left out."""
        found: list[int] = []
        for piece in _PIECES.findall(text):
            found += self._piece(piece)
        return found

    def knows(self, word: str) -> bool:
        """Whether a word has a number of its own, in this case or in another, and need not be spelt."""
        return any(form in self.numbers for form in (word, word.lower(), word.capitalize()))

    def _piece(self, piece: str) -> list[int]:
        if (number := self.numbers.get(piece)) is not None:
            return [number]
        lowered = piece[0].lower() + piece[1:]
        if (number := self.numbers.get(lowered)) is not None:
            return [self.numbers["<cap>"], number]
        if not _WORD.match(piece):
            return []
        letters = [self.numbers[letter] for letter in piece[:24] if letter in self.numbers]
        return [self.numbers["<spell>"], *letters, self.numbers["</spell>"]] if letters else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens → text; markers are left out."""
        text, capital, spelling, joined = "", False, False, True
        for token in tokens:
            piece = self.pieces[token]
            if piece in ("<cap>", "<spell>", "</spell>"):
                capital = capital or piece == "<cap>"
                if piece == "<spell>":
                    text += " " if text and not joined else ""
                spelling = piece == "<spell>"
                continue
            if piece.startswith("<") and len(piece) > 1:
                continue
            if not spelling and _space_between(text, piece):
                text += " "
            text += piece[0].upper() + piece[1:] if capital else piece
            capital, joined = False, piece in _NO_SPACE_AFTER
        return text


def _space_between(text: str, piece: str) -> bool:
    if not text or piece in _NO_SPACE_BEFORE or text[-1] in _NO_SPACE_AFTER:
        return False
    if piece.isdigit() and text[-1].isdigit():
        return False
    return not ("一" <= piece[0] <= "鿿" or "一" <= text[-1] <= "鿿")


def make_tokenizer(pieces: Iterable[str]) -> Tokenizer:
    """A tokenizer of markers, letters and the given pieces, in this order, each once."""
    every = tuple(dict.fromkeys((*SPECIALS, *LETTERS, *pieces)))
    return Tokenizer(pieces=every, numbers={piece: number for number, piece in enumerate(every)})


def pieces_of(text: str) -> list[str]:
    """The pieces that a text would need to be in the vocabulary, sentence capitals lowered."""
    return [piece[0].lower() + piece[1:] if piece[1:].islower() else piece for piece in _PIECES.findall(text)]


def save_tokenizer(tokenizer: Tokenizer, file: Path) -> None:
    """Write the pieces as JSON."""
    file.write_text(json.dumps(tokenizer.pieces, ensure_ascii=False, indent=0), "utf-8")


def load_tokenizer(file: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote."""
    return make_tokenizer(json.loads(file.read_text("utf-8")))
