"""Drawings of the same things by other hands: emoji sets with free licences, matched by code point or by name.

They are for the vision-language training alone. A thing that training never shows gets none, drawings that evaluation
alone sees stay what they are, and so do the roles of all things.
"""

import io
import json
import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from training.ingredients.cutouts import is_thing
from training.ingredients.fetch import PACKAGES
from training.vl.pictures.concepts import TABLE, Concept, build_concept, place_of, role_of, thing_of_emoji

MERGES = Path(__file__).parent / "further.toml"
FOLDER = "drawings"
DRAWING_PX = 160
QUALITY, ALPHA_QUALITY = 70, 60
MOST_OF_A_SET = 8  # drawings of one thing: there are some 70 smileys and 60 men in each
FREE_LICENCES = frozenset({"Apache-2.0", "MIT", "CC-BY-4.0", "CC0-1.0", "Zlib"})
FLUENT = frozenset({"fluent-emoji-flat", "fluent-emoji-3d"})
"""Sets in the design of the video pack's emoji, so a code point held out there is held out here."""
SETS = ("noto", "noto-v1", "twemoji", "emojione", "fxemoji", "fluent-emoji-flat", "streamline-emojis")
_3D = "fluent-emoji-3d"
_PIXELS = {
    _3D: (f"@lobehub/{_3D}", "Microsoft (Fluent Emoji)", "MIT"),
    "openclipart-png": ("openclipart-png", "contributors of openclipart.org", "public domain"),
}
"""Sets that their package holds in pixels: package, author, licence."""

Label = dict[str, Any]
"""A row of emojibase: label, hexcode, group, subgroup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One picture of a set: where it is packed, and what it is drawn from."""

    file: str
    origin: str
    code: str
    """Code points in lower-case hexadecimal, without the variation selector."""
    svg: str
    """Empty for a picture that the package holds in pixels, `pixels`."""
    pixels: Path | None = None


def bare(hexcode: str) -> str:
    """The code points without the selector that only asks for a coloured picture."""
    return hexcode.lower().replace("-fe0f", "")


def kebab(text: str) -> str:
    """A label as icon sets spell it: "woman’s hat" is womans-hat."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['’]", "", text.lower())).strip("-")


class IconSet:
    """One iconify package: its licence, and the drawings of a code point."""

    def __init__(self, folder: Path) -> None:
        """Read the unpacked package. Raises ValueError unless its licence lets what was learnt from it be shipped."""
        self.name = folder.name.removeprefix("iconify-json-")
        info = json.loads((folder / "package/info.json").read_text("utf-8"))
        self.author, self.licence = str(info["author"]["name"]), str(info["license"]["spdx"])
        if self.licence not in FREE_LICENCES:
            raise ValueError(f"{self.name}: {self.licence} is not among {sorted(FREE_LICENCES)}")
        self._icons = json.loads((folder / "package/icons.json").read_text("utf-8"))
        codes = json.loads((folder / "package/chars.json").read_text("utf-8"))
        self.codes = {bare(code): name for code, name in codes.items()}
        self._names = {name: name for name in self._icons["icons"]}
        self._names |= {name: alias["parent"] for name, alias in self._icons.get("aliases", {}).items()
                        if alias.keys() == {"parent"} and alias["parent"] in self._names}
        self._squashed = {name.replace("-", ""): target for name, target in self._names.items()}

    def drawings(self, code: str, names: list[str]) -> list[str]:
        """SVGs of a code point: by the set's own table, else by the first of `names` that it has."""
        if self.codes:
            chosen = [self.codes[code]] if code in self.codes else []
        else:
            chosen = next((found for name in names if (found := self._numbered(name))), [])
        return [self._svg(self._names[name]) for name in chosen if name in self._names]

    def _numbered(self, name: str) -> list[str]:
        if plain := self._squashed.get(name.replace("-", "")):
            return [plain]
        return [f"{name}-{number}" for number in range(1, 6) if f"{name}-{number}" in self._names]

    def _svg(self, name: str) -> str:
        icon, whole = self._icons["icons"][name], self._icons
        width, height = (icon.get(side, whole.get(side, 16)) for side in ("width", "height"))
        left, top = icon.get("left", 0), icon.get("top", 0)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>')


def names_of(rows: list[Label]) -> dict[str, list[str]]:
    """Code → names to look a drawing up by: its label, and its Unicode name unless that is another emoji's label."""
    labels = {kebab(row["label"]) for row in rows}
    found = {}
    for row in rows:
        code, names = bare(row["hexcode"]), [kebab(row["label"])]
        official = kebab(unicodedata.name(chr(int(code, 16)), "")) if "-" not in code else ""
        found[code] = names + [official] * (bool(official) and official not in labels)
    return found


def _emojibase(data: Path) -> tuple[list[Label], dict[str, str], dict[str, str]]:
    """Rows, the Chinese name of each label, and the subgroups' names."""
    folder = data / "packages/emojibase-data/package"
    rows, chinese, groups = (json.loads((folder / name).read_text("utf-8"))
                             for name in ("en/data.json", "zh/data.json", "meta/groups.json"))
    of_code = {row["hexcode"]: row["label"] for row in chinese}
    return rows, {row["label"].lower(): of_code[row["hexcode"]] for row in rows}, groups["subgroups"]


def read_sets(data: Path) -> list[IconSet]:
    """The fetched sets, in the order in which their drawings are listed."""
    return [IconSet(data / "packages" / f"iconify-json-{name}") for name in SETS]


def _drawings(data: Path, sets: list[IconSet], rows: list[Label], packed: set[str]) -> Iterator[Drawing]:
    """Every drawing of the rows once, and the Fluent ones that the video pack lacks."""
    names = names_of(rows)
    folder = data / "packages/lobehub-fluent-emoji-3d/package/assets"
    seen: set[str] = set()
    for row in rows:
        code = bare(row["hexcode"])
        for one in sets:
            for number, svg in enumerate(one.drawings(code, names[code])):
                if svg not in seen:
                    seen.add(svg)
                    ending = f"-{number + 1}" if number else ""
                    yield Drawing(file=f"{FOLDER}/{one.name}-{code}{ending}.webp", origin=one.name, code=code, svg=svg)
        pixels = next((file for file in (folder / f"{code}-fe0f.webp", folder / f"{code}.webp") if file.exists()), None)
        if code not in packed and pixels is not None:
            yield Drawing(file=f"{FOLDER}/{_3D}-{code}.webp", origin=_3D, code=code, svg="", pixels=pixels)


def with_further(concepts: list[Concept], data: Path) -> tuple[list[Concept], list[Drawing]]:
    """The concepts with drawings by other hands, those that only these show, and the drawings to be packed."""
    rows, chinese, subgroups = _emojibase(data)
    rows = [row for row in rows if is_thing(row)]
    sources = json.loads((data / "sources.json").read_text("utf-8"))
    code_of = {row["file"]: bare(row["source"].removesuffix(".webp")) for row in sources}
    held = {code_of[file] for concept in concepts for file in concept.held_files}
    packed = {code for file, code in code_of.items() if "/emoji-" in file}
    table, by_name = _tables(), {concept.en: concept for concept in concepts}
    of_code: dict[str, tuple[str, str, str]] = {}
    for row in rows:
        named = thing_of_emoji(row["label"].lower(), subgroups[str(row["subgroup"])], chinese)
        if named is not None and (named[2] in table["kinds"] or named[0] in table["regroup"]) \
                and not table["skip"] & {named[0], row["label"].lower()}:
            of_code[bare(row["hexcode"])] = (table["merge"].get(named[0], named[0]), *named[1:])
    found: dict[str, dict[str, list[Drawing]]] = defaultdict(lambda: defaultdict(list))
    new: dict[str, tuple[str, str]] = {}
    for drawing in _drawings(data, read_sets(data), rows, packed):
        if drawing.code not in of_code or (drawing.origin in FLUENT and drawing.code in held):
            continue
        if drawing.code in table["misleading"].get(drawing.origin, ()):
            continue
        en, zh, kind = of_code[drawing.code]
        if (by_name[en].role if en in by_name else role_of(en)) == "held":
            continue  # evaluation's strangers are things of no training picture
        found[en][drawing.origin].append(drawing)
        new.setdefault(en, (zh, kind))
    chosen = {en: [drawing for some in of_set.values()
                   for drawing in sorted(some, key=lambda one: place_of(one.file))[:MOST_OF_A_SET]]
              for en, of_set in found.items()}
    regroup, kinds = table["regroup"], table["kinds"]
    for en in chosen.keys() - by_name.keys():
        zh, kind = new[en]
        by_name[en] = replace(build_concept(en, zh, kinds[regroup.get(en, kind)], []), held_files=())
    grown = [replace(concept, files=(*concept.files, *(drawing.file for drawing in chosen.get(en, ()))))
             for en, concept in sorted(by_name.items())]
    return grown, [drawing for some in chosen.values() for drawing in some]


def drawings_of_emoji(data: Path, labels: Container[str]) -> Iterator[tuple[str, Drawing]]:
    """(label, drawing) in every set and in Fluent's 3-D one, of the emoji that are labelled so."""
    rows, _, _ = _emojibase(data)
    rows = [row for row in rows if row["label"] in labels]
    label_of = {bare(row["hexcode"]): row["label"] for row in rows}
    for drawing in _drawings(data, read_sets(data), rows, set()):
        yield label_of[drawing.code], drawing


@cache
def _tables() -> dict[str, Any]:
    table, further = tomllib.loads(TABLE.read_text("utf-8")), tomllib.loads(MERGES.read_text("utf-8"))
    return {"kinds": table["kinds"], "regroup": table["regroup"] | further["regroup"], "merge": further["merge"],
            "skip": frozenset(further["skip"]), "misleading": further["misleading"]}


def rasterise(drawing: Drawing) -> Image.Image:
    """RGBA, cropped to what is drawn, at most DRAWING_PX a side."""
    if drawing.pixels is not None:
        picture = Image.open(drawing.pixels).convert("RGBA")
    else:
        import resvg_py  # only packing draws, and only packing's machine has it

        png = bytes(resvg_py.svg_to_bytes(svg_string=drawing.svg, width=2 * DRAWING_PX))
        picture = Image.open(io.BytesIO(png)).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS)
    return picture


def source_records(drawings: list[Drawing], data: Path) -> list[dict[str, str]]:
    """Package, author and licence of every drawing, as `training.ingredients.pack` keeps them."""
    sets = {one.name: one for one in read_sets(data)}
    versions = {package.name: package.version for package in PACKAGES}
    records = []
    for drawing in drawings:
        own = sets.get(drawing.origin)
        package, author, licence = (f"@iconify-json/{own.name}", own.author, own.licence) if own \
            else _PIXELS[drawing.origin]
        version = f" {versions[package]}" if versions[package] else ""
        records.append({"file": drawing.file, "package": package + version, "source": drawing.code, "author": author,
                        "licence": licence})
    return records
