"""Cut-outs with a transparent background: emoji of real things, and clip-art drawn from vectors."""

import io
import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

CUTOUT_PX = 192
CLIPART_COUNT = 1400
MAX_SVG_BYTES = 400_000

# emojibase numbers its groups; left out: skin tones and hair (2), symbols (8) and flags (9)
_EMOJI_GROUPS = frozenset({0, 1, 3, 4, 5, 6, 7})
_NOT_THINGS = re.compile(r"heart|keycap|o.clock|thirty|speech balloon|thought|ZZZ|anger symbol|right anger|hundred")
_CLIPART_FOLDERS = (
    "animals", "buildings", "computer", "containers", "decorations", "education", "electronics", "food", "geography",
    "office", "people", "plants", "recreation", "science", "tools", "transportation",
)
_NOT_PICTURES = re.compile(
    r"flag|logo|icon|symbol|sign|letter|text|map|chart|diagram|border|frame|_bw|"
    r"nude|naked|nazi|barcode|sailing|dead|blood|gun"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """One RGBA picture, at most 192 pixels a side, and where it came from."""

    name: str
    kind: str
    caption: str
    source: str
    picture: Image.Image


def is_thing(row: dict[str, Any]) -> bool:
    """Whether a row of emojibase is of a person, an animal or a thing, rather than a symbol."""
    return row.get("group") in _EMOJI_GROUPS and not _NOT_THINGS.search(row["label"])


def emoji(packages: Path) -> Iterator[Cutout]:
    """Fluent 3D emoji (MIT) of faces, people, animals, food, places, activities and objects, by their CLDR name."""
    labels = json.loads((packages / "emojibase-data/package/en/data.json").read_text(encoding="utf-8"))
    folder = packages / "lobehub-fluent-emoji-3d/package/assets"
    for row in labels:
        if not is_thing(row):
            continue
        file = folder / f"{row['hexcode'].lower()}.webp"
        if file.exists():
            picture = Image.open(file).convert("RGBA")
            picture.thumbnail((CUTOUT_PX, CUTOUT_PX), Image.Resampling.LANCZOS)
            yield Cutout(name=file.stem, kind="emoji", caption=row["label"].lower(), source=file.name, picture=picture)


def _caption(svg: bytes, file: Path) -> str:
    """The drawing's own title where it has a usable one, else its file name without author and number."""
    title = ""
    try:
        for element in ElementTree.fromstring(svg).iter():
            if element.tag.rsplit("}")[-1] == "title" and (element.text or "").strip():
                title = (element.text or "").strip()
                break
    except ElementTree.ParseError:
        pass
    words = re.sub(r"[_\-\d.]+", " ", title).lower().split()
    if not 1 <= len(words) <= 6 or "openclipart" in words or "untitled" in words:
        words = re.split(r"[_\-\d.]+", file.stem.lower())[:1]
    return " ".join(word for word in words if word.isascii())


def _is_pictorial(picture: Image.Image) -> bool:
    """True for a coloured drawing that neither fills the whole canvas nor nearly vanishes on it."""
    rgba = np.asarray(picture).astype(np.float32)
    covered = rgba[..., 3] > 128
    if not 0.1 < covered.mean() < 0.97:
        return False
    rgb = rgba[..., :3][covered]
    colourful = (rgb.max(-1) - rgb.min(-1)).mean()
    return bool(colourful > 15 and rgb.std(0).mean() > 12)


def _rasterise(file: Path) -> Cutout | None:
    svg = file.read_bytes()
    caption = _caption(svg, file)
    if len(caption) < 3 or _NOT_PICTURES.search(caption) or "illustration" in caption:
        return None
    import resvg_py  # only packing draws, and only packing's machine has it

    try:
        png = bytes(resvg_py.svg_to_bytes(svg_path=str(file), width=2 * CUTOUT_PX))
        picture = Image.open(io.BytesIO(png)).convert("RGBA")
    except (ValueError, OSError):
        return None  # some old drawings are not valid SVG
    box = picture.getchannel("A").getbbox()
    if box is None or not 0.4 < (box[2] - box[0]) / (box[3] - box[1]) < 2.5:
        return None
    picture = picture.crop(box)
    picture.thumbnail((CUTOUT_PX, CUTOUT_PX), Image.Resampling.LANCZOS)
    if not _is_pictorial(picture):
        return None
    return Cutout(name=file.stem, kind="clipart", caption=caption, source=file.name, picture=picture)


def clipart(packages: Path) -> Iterator[Cutout]:
    """Public-domain drawings of real things, the same ones every time."""
    root = packages / "openclipart-svg/usr/share/openclipart/svg"
    files = sorted(
        file for folder in _CLIPART_FOLDERS for file in (root / folder).rglob("*.svg")
        if file.stat().st_size <= MAX_SVG_BYTES and not _NOT_PICTURES.search(file.as_posix()[len(str(root)):].lower())
    )
    random.Random(0).shuffle(files)
    found = 0
    with ThreadPoolExecutor(2) as pool:
        for cutout in pool.map(_rasterise, files):
            if cutout is not None:
                yield cutout
                found += 1
                if found == CLIPART_COUNT:
                    pool.shutdown(cancel_futures=True)
                    return
