"""Clip-art of the same things by hundreds of hands: those drawings of openclipart.org that the video pack leaves out.

`openclipart.tsv` says what each shows; it was written by looking at them. Debian's package holds them as pixels, also
the half of them whose SVG gives no size.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from training.vl.pictures.concepts import Concept, called, subject_of
from training.vl.pictures.further import FOLDER, Drawing

TABLE = Path(__file__).parent / "openclipart.tsv"
ORIGIN = "openclipart-png"
_PIXELS = Path("packages") / ORIGIN / "usr/share/openclipart/png"


def read_table(file: Path = TABLE) -> list[tuple[str, str]]:
    """Rows of (name, path within the package)."""
    rows = [line.split("\t") for line in file.read_text("utf-8").splitlines()]
    return [(called(name, "")[0], path) for name, path in rows]


def with_clipart(
    concepts: list[Concept], rows: Iterable[tuple[str, str]], held_sources: Iterable[str], data: Path,
) -> tuple[list[Concept], list[Drawing]]:
    """The concepts with the drawings of the table, and those to be packed.

    Raises ValueError for a thing that training must not show, and for a drawing that evaluation alone may see.
    """
    by_name = {concept.en: concept for concept in concepts}
    held = {subject_of(source) for source in held_sources}
    chosen = list(_drawings(rows, by_name, held, data))
    files: dict[str, list[str]] = {}
    for name, drawing in chosen:
        files.setdefault(name, []).append(drawing.file)
    grown = [replace(concept, files=(*concept.files, *files.get(concept.en, ()))) for concept in concepts]
    return grown, [drawing for _, drawing in chosen]


def _drawings(
    rows: Iterable[tuple[str, str]], by_name: dict[str, Concept], held: set[frozenset[str]], data: Path,
) -> Iterator[tuple[str, Drawing]]:
    for name, path in rows:
        if name not in by_name or by_name[name].role == "held":
            raise ValueError(f"{path}: training shows no {name}")
        if subject_of(path) in held:
            raise ValueError(f"{path}: evaluation alone sees a drawing of that name")
        yield name, clipart_drawing(path, data)


def clipart_drawing(path: str, data: Path) -> Drawing:
    """The drawing at a path within the package."""
    stem = re.sub(r"[^a-z0-9]+", "-", path.removesuffix(".png").lower())
    return Drawing(file=f"{FOLDER}/{ORIGIN}-{stem}.webp", origin=ORIGIN, code=path, svg="",
                   pixels=data / _PIXELS / path)
