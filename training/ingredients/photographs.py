"""The photographs worth learning from: a table of them, and how each is read out of its package."""

import base64
import bz2
import csv
import io
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from training.ingredients.fetch import Package
from training.ingredients.qt_resources import read_resources

TABLE = Path(__file__).parent / "photographs.tsv"
MIDDLE_GREY = 0.22
WHITE = 6.0  # in multiples of the average brightness after exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One row of photographs.tsv; `crop` is left, top, right, bottom as fractions, or empty for all of it.

    `path` is a file inside the package, or `rcc:ARCHIVE:PATH` inside a Qt resource file, or `frame:N:VIDEO`.
    """

    name: str
    package: str
    path: str
    author: str
    licence: str
    caption: str
    crop: str


def read_table() -> list[Photograph]:
    """Every photograph of the table, in its order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [Photograph(**{key: value or "" for key, value in row.items()})
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@cache
def _archive(path: Path) -> dict[str, bytes]:
    return dict(read_resources(path.read_bytes()))


def _tone_mapped(path: Path) -> Image.Image:
    """A high dynamic range picture as sRGB: exposed to middle grey, highlights rolled off (Reinhard)."""
    import OpenEXR  # only packing needs it, not training

    with OpenEXR.File(str(path)) as file:
        channels = file.channels()
        light = (channels["RGB"] if "RGB" in channels else channels["RGBA"]).pixels[..., :3].astype(np.float32)
    light = np.clip(np.nan_to_num(light, posinf=1e4), 0, None)
    light *= MIDDLE_GREY / np.exp(np.log(light.mean(-1) + 1e-3).mean())
    display = light * (1 + light / WHITE**2) / (1 + light)
    return Image.fromarray((np.clip(display, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))


def _video_frame(path: Path, index: int) -> Image.Image:
    with av.open(str(path)) as container:
        for position, frame in enumerate(container.decode(video=0)):
            if position == index:
                return frame.to_image()
    raise IndexError(f"{path.name} has fewer than {index + 1} frames")


def _open(folder: Path, path: str) -> Image.Image:
    if path.startswith("rcc:"):
        _, archive, inner = path.split(":", 2)
        resources = _archive(folder / "usr/share/gcompris-qt/rcc" / f"{archive}.rcc")
        return Image.open(io.BytesIO(resources[f"/{inner}"]))
    if path.startswith("frame:"):
        _, index, inner = path.split(":", 2)
        return _video_frame(folder / inner, int(index))
    if path.endswith(".exr"):
        return _tone_mapped(folder / path)
    if path.endswith(".exr.js"):  # a JavaScript module whose default export is a data URI
        with tempfile.NamedTemporaryFile(suffix=".exr") as file:
            file.write(base64.b64decode((folder / path).read_text().split("base64,")[1].split("'")[0]))
            file.flush()
            return _tone_mapped(Path(file.name))
    if path.endswith("face.dat"):  # scipy's raccoon: bzip2 of 768 x 1024 x 3 bytes
        pixels = np.frombuffer(bz2.decompress((folder / path).read_bytes()), np.uint8)
        return Image.fromarray(pixels.reshape(768, 1024, 3))
    return Image.open(folder / path)


def load(photograph: Photograph, packages: Path) -> Image.Image:
    """The photograph in RGB at its full size, cropped as its row says. Raises OSError or KeyError if it is missing."""
    folder = packages / Package(client="pip", name=photograph.package).folder
    picture = _open(folder, photograph.path).convert("RGB")
    if photograph.crop:
        left, top, right, bottom = (float(part) for part in photograph.crop.split())
        width, height = picture.size
        picture = picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    return picture
