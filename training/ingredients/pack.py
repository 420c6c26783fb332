"""Packs the fetched ingredients small enough to carry to a training machine: `training/data/pack`.

`index.json` is a list of {file, kind (photo | emoji | clipart), caption, width, height}; `sources.json` beside the
pack names source, author and licence of every picture, and `training/SOURCES.md` shows the same as a table.
Run `python -m training.ingredients.fetch` first. Besides the `video` extra, packing needs `resvg_py` and `OpenEXR`.
"""

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from training.ingredients import cutouts, photographs
from training.ingredients.fetch import DATA

SOURCES_PAGE = Path(__file__).parents[1] / "SOURCES.md"
PHOTO_MAX_PX = 1536
PHOTO_QUALITY = 90
CUTOUT_QUALITY = 85
SOURCES, VL_SOURCES = "sources.json", "sources-vl.json"
MAX_PACK_BYTES = 45 * 2**20
_CUTOUT_SOURCES = {
    "emoji": ("@lobehub/fluent-emoji-3d", "Microsoft (Fluent Emoji)", "MIT"),
    "clipart": ("openclipart-svg", "contributors of openclipart.org", "public domain"),
}

Row = dict[str, str | int]


def _row(file: Path, pack: Path, kind: str, caption: str, picture: Image.Image) -> Row:
    return {"file": file.relative_to(pack).as_posix(), "kind": kind, "caption": caption,
            "width": picture.width, "height": picture.height}


def pack_photographs(packages: Path, pack: Path) -> tuple[list[Row], list[dict[str, str]]]:
    """Writes every photograph of the table as JPEG; returns index rows and source records."""
    rows, sources = [], []
    for photograph in photographs.read_table():
        picture = photographs.load(photograph, packages)
        picture.thumbnail((PHOTO_MAX_PX, PHOTO_MAX_PX), Image.Resampling.LANCZOS)
        file = pack / "photos" / f"{photograph.name}.jpg"
        picture.save(file, quality=PHOTO_QUALITY, subsampling=0)
        rows.append(_row(file, pack, "photo", photograph.caption, picture))
        sources.append({"file": file.relative_to(pack).as_posix(), "package": photograph.package,
                        "source": photograph.path, "author": photograph.author, "licence": photograph.licence})
    return rows, sources


def pack_cutouts(packages: Path, pack: Path) -> tuple[list[Row], list[dict[str, str]]]:
    """Writes emoji and clip-art as WebP with alpha; returns index rows and source records."""
    rows, sources = [], []
    for draw in (cutouts.emoji, cutouts.clipart):
        for number, cutout in enumerate(draw(packages)):
            file = pack / "cutouts" / f"{cutout.kind}-{number:04}.webp"
            cutout.picture.save(file, quality=CUTOUT_QUALITY, method=4)
            rows.append(_row(file, pack, cutout.kind, cutout.caption, cutout.picture))
            package, author, licence = _CUTOUT_SOURCES[cutout.kind]
            sources.append({"file": file.relative_to(pack).as_posix(), "package": package,
                            "source": cutout.source, "author": author, "licence": licence})
    return rows, sources


def sources_page(sources: list[dict[str, str]], further: list[dict[str, str]]) -> str:
    """Markdown for people: a row per photograph, a row per package of cut-outs or of `further` drawings."""
    lines = [
        "# Pictures that the embedded video checkpoint learnt from", "",
        "Written by `python -m training.ingredients.pack`. None of them is committed; each comes from the",
        "package named, and its licence (as that package, or the collection it took the picture from,",
        "records it) allows shipping what was learnt from it. scikit-image's pictures are never used here:",
        "they are the evaluation set.", "",
        "| what | package | author | licence |", "|---|---|---|---|",
    ]
    cut = Counter((row["package"], row["author"], row["licence"]) for row in sources if "cutouts/" in row["file"])
    lines += [f"| {count} cut-outs | `{package}` | {author} | {licence} |"
              for (package, author, licence), count in cut.items()]
    lines += [f"| {row['source'].rsplit('/')[-1]} | `{row['package']}` | {row['author']} | {row['licence']} |"
              for row in sources if "photos/" in row["file"]]
    if further:
        lines += ["", "## Drawings for the vision-language checkpoint alone", "",
                  "Written by `python -m training.vl.pack`.", "",
                  "| what | package | author | licence |", "|---|---|---|---|"]
        drawn = Counter((row["package"], row["author"], row["licence"]) for row in further)
        lines += [f"| {count} drawings | `{package}` | {author} | {licence} |"
                  for (package, author, licence), count in sorted(drawn.items())]
    return "\n".join(lines) + "\n"


def write_sources_page(data: Path) -> None:
    """Writes SOURCES.md from what the packs of `data` were made of."""
    sources, further = (json.loads(file.read_text("utf-8")) if (file := data / name).exists() else []
                        for name in (SOURCES, VL_SOURCES))
    SOURCES_PAGE.write_text(sources_page(sources, further), encoding="utf-8")


def main() -> None:
    """Packs everything anew and prints counts and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    data = parser.parse_args().data
    packages, pack = data / "packages", data / "pack"
    shutil.rmtree(pack, ignore_errors=True)
    for folder in ("photos", "cutouts"):
        (pack / folder).mkdir(parents=True)
    rows, sources = [], []
    for step in (pack_photographs, pack_cutouts):
        more_rows, more_sources = step(packages, pack)
        rows += more_rows
        sources += more_sources
    (pack / "index.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0), encoding="utf-8")
    (data / SOURCES).write_text(json.dumps(sources, ensure_ascii=False, indent=0), encoding="utf-8")
    write_sources_page(data)
    size = sum(file.stat().st_size for file in pack.rglob("*") if file.is_file())
    print(f"{dict(Counter(row['kind'] for row in rows))}, {size / 2**20:.1f} MiB in {pack}")
    if size > MAX_PACK_BYTES:
        raise SystemExit(f"the pack is larger than {MAX_PACK_BYTES / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
