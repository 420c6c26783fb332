"""Drawings of things that training gives no name: of them the branches learn the kind alone, and to be unsure.

`others.toml` has emoji by their label, `others.tsv` drawings of openclipart.org by their path, written by looking at
them. None shows a thing that evaluation keeps for itself.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.vl.pictures.concepts import Concept, subject_of
from training.vl.pictures.further import Drawing, drawings_of_emoji
from training.vl.pictures.openclipart import clipart_drawing

HERE = Path(__file__).parent
INDEX = "others.json"
KEPT_BACK = 4  # one in so many is for choosing thresholds alone

OfKind = dict[str, list[str]]
"""Kind → files."""


def other_drawings(data: Path, held_sources: Iterable[str]) -> list[tuple[str, Drawing]]:
    """(kind, drawing) of both tables. Raises ValueError for a drawing that evaluation alone may see."""
    held = {subject_of(source) for source in held_sources}
    kind_of = {label: kind for kind, labels in tomllib.loads((HERE / "others.toml").read_text("utf-8")).items()
               for label in labels}
    found = [(kind_of[label], drawing) for label, drawing in drawings_of_emoji(data, kind_of)]
    rows = [line.split("\t") for line in (HERE / "others.tsv").read_text("utf-8").splitlines()]
    if wrong := [path for _, path in rows if subject_of(path) in held]:
        raise ValueError(f"evaluation alone sees drawings of these names: {', '.join(wrong)}")
    return found + [(kind, clipart_drawing(path, data)) for kind, path in rows]


def save_others(drawings: Iterable[tuple[str, Drawing]], folder: Path) -> None:
    """Write which file shows what kind."""
    found: OfKind = {}
    for kind, drawing in drawings:
        found.setdefault(kind, []).append(drawing.file)
    (folder / INDEX).write_text(json.dumps(found, indent=0), "utf-8")


def load_others(folder: Path) -> tuple[OfKind, OfKind]:
    """For the branches, and for choosing thresholds."""
    told: OfKind = json.loads((folder / INDEX).read_text("utf-8"))
    parts: tuple[OfKind, OfKind] = ({}, {})
    for kind, files in told.items():
        for file in files:
            parts[_kept_back(file)].setdefault(kind, []).append(file)
    return parts


def _kept_back(file: str) -> bool:
    return hashlib.sha256(f"others {file}".encode()).digest()[0] % KEPT_BACK == 0


def as_concepts(others: Mapping[str, Iterable[str]]) -> list[Concept]:
    """One thing without a name for each kind, so that it can be composed as named ones are."""
    return [Concept(en="", zh="", kind_en=kind, kind_zh="", measure="", group="", plural=False, role="strange",
                    files=tuple(files), held_files=()) for kind, files in others.items()]
