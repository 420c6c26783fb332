"""The record: what the decoder says of a picture before any text, so that every text says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vl_service.embedded.vision.facts import ImageFacts

Sureness = Literal["sure", "likely", "unsure"]
_MARKERS = ("<kind>", "<count>", "<colour>", "<place>", "<size>", "<setting>", "<end>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One picture as the decoder sees it; words are English and plain."""

    sureness: Sureness
    name: str
    """The subject's noun without article; empty when unsure."""
    kind: str
    """What kind of thing it is; empty when not even that is known."""
    count: int
    colour: str
    level: str
    side: str
    size: str
    setting: str
    confidence: float
    """Probability of the name, or when unsure of the kind, as the decoder gave it."""


def read_record(pieces: Sequence[str], confidence: float) -> Record:
    """Pieces of a record → its fields; what is missing or out of shape is left empty."""
    fields: dict[str, list[str]] = {marker: [] for marker in ("", *_MARKERS)}
    marker = ""
    spelling = False
    for piece in pieces[1:]:
        if piece in _MARKERS:
            marker, spelling = piece, False
        elif piece in ("<spell>", "</spell>"):
            spelling = piece == "<spell>"
            fields[marker] += [""] * spelling
        elif spelling and fields[marker]:
            fields[marker][-1] += piece
        elif not piece.startswith("<"):
            fields[marker].append(piece)
    sureness: Sureness = "sure" if pieces[0] == "<sure>" else "likely" if pieces[0] == "<likely>" else "unsure"
    count, place = "".join(fields["<count>"]), fields["<place>"]
    kind, colour = " ".join(fields["<kind>"]), " ".join(fields["<colour>"])
    return Record(
        sureness=sureness,
        name="" if sureness == "unsure" else " ".join(fields[""]),
        kind="" if kind == "unknown" else kind,
        count=int(count) if count.isdigit() else 1,
        colour="" if colour == "unknown" else colour,
        level=place[0] if place else "middle",
        side=place[1] if len(place) > 1 else "centre",
        size=" ".join(fields["<size>"]),
        setting=" ".join(fields["<setting>"]) or "unclear",
        confidence=confidence,
    )


def facts_as_text(record: Record, facts: ImageFacts, guess: str) -> dict[str, str]:
    """Record, guessed name and measurements in short strings for `DescribeResponse.facts`."""
    layout = facts.layout
    return {
        "size": f"{facts.width}x{facts.height}",
        "subject": record.name or "unsure",
        "guess": guess or "none",
        "kind": record.kind or "unknown",
        "sureness": record.sureness,
        "confidence": f"{record.confidence:.2f}",
        "count": str(record.count),
        "colour": record.colour or "unknown",
        "place": f"{record.level} {record.side}",
        "setting": record.setting,
        "palette": ", ".join(f"{colour.name} {colour.share:.2f}" for colour in facts.palette),
        "brightness": f"{facts.brightness:.2f}",
        "contrast": f"{facts.contrast:.2f}",
        "colourfulness": f"{facts.colourfulness:.2f}",
        "warmth": f"{facts.warmth:.2f}",
        "sharpness": f"{facts.sharpness:.2f}",
        "backdrop": layout.backdrop or "none",
        "horizon": "none" if layout.horizon is None else f"{layout.horizon:.2f}",
        "sky": f"{layout.sky:.2f}",
        "water": f"{layout.water:.2f}",
        "greenery": f"{layout.greenery:.2f}",
    }
