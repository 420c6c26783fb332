"""Pictures with known facts: cut-outs on photographs and drawn scenes, in known number, place, colour and light."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from training.vl.pictures.backdrops import SIDE, background, for_evaluation
from training.vl.pictures.concepts import Concept
from training.vl.pictures.redrawn import redrawn
from vl_service.embedded.vision.colours import lab_from_rgb, palette_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a composed picture shows. Positions and sizes in 0..1 from the top left."""

    concept: int
    """Index of the concept, -1 for none."""
    count: int
    colour: str
    """Main colour of the subject as drawn, lit and tinted; empty for none."""
    x: float
    y: float
    extent: float
    """Share of the frame that the subjects' boxes cover."""
    setting: str
    """indoors, outdoors, under water or unclear."""
    aspect: float
    """Width over height of the picture as it was before squeezing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Everything pictures are composed of, loaded once a process."""

    photographs: tuple[tuple[str, Image.Image], ...]
    cutouts: dict[str, Image.Image]
    concepts: tuple[Concept, ...]


def load_stock(
    folder: Path, concepts: list[Concept], *, evaluation: bool, cutouts: dict[str, Image.Image] | None = None
) -> Stock:
    """Photographs and cut-outs of `training/data/vl`; `evaluation` takes the backgrounds that training never sees.

    `cutouts` are those of another stock, so that they are decoded once.
    """
    photographs = tuple(
        (file.stem, Image.open(file).convert("RGB"))
        for file in sorted((folder / "photos").glob("*.jpg"))
        if for_evaluation(file.stem) == evaluation
    )
    if cutouts is None:
        names = {name for concept in concepts for name in (*concept.files, *concept.held_files)}
        cutouts = {name: Image.open(folder / name).convert("RGBA") for name in sorted(names)}
    return Stock(photographs=photographs, cutouts=cutouts, concepts=tuple(concepts))


def compose(
    stock: Stock, rng: random.Random, concept: int | None, *, held: bool = False, count: int | None = None,
    redrawn_share: float = 0.0,
) -> tuple[Image.Image, Truth]:
    """One square picture and its truth; `concept` indexes `stock.concepts`, `None` leaves the scene empty.

    `redrawn_share` of the drawings are turned, tinted or cut first.
    """
    aspect = rng.choice((1.0, 1.5, 1.33, 1.78, 0.75, 0.67, 0.56)) if rng.random() < 0.8 else rng.uniform(0.55, 1.8)
    canvas, setting = background(stock.photographs, rng, aspect)
    if concept is None:
        return _finish(canvas, rng), Truth(
            concept=-1, count=0, colour="", x=0.5, y=0.5, extent=0.0, setting=setting, aspect=aspect
        )
    entry = stock.concepts[concept]
    cutout = stock.cutouts[rng.choice(entry.held_files if held else entry.files)]
    if redrawn_share and rng.random() < redrawn_share:
        cutout = redrawn(cutout, rng)
    number = 1 if entry.plural else count or _number(entry, rng)
    mask = Image.new("L", (SIDE, SIDE))
    boxes = _places(rng, number, aspect, cutout.width / cutout.height)
    mirrored = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for left, top, right, bottom in boxes:
        piece = (mirrored if rng.random() < 0.4 else cutout).resize(
            (max(4, right - left), max(4, bottom - top)), Image.Resampling.BICUBIC
        )
        if rng.random() < 0.5:
            shade = Image.new("RGBA", piece.size, (0, 0, 0, 90))
            canvas.paste(
                shade,
                (left + 4, top + 5),
                piece.getchannel("A").filter(ImageFilter.GaussianBlur(3)).point(lambda value: value * 0.4),
            )
        canvas.paste(piece, (left, top), piece)
        mask.paste(255, (left, top), piece.getchannel("A").point([255 * (value > 160) for value in range(256)]))
    final = _finish(canvas, rng)
    centres = [((left + right) / 2 / SIDE, (top + bottom) / 2 / SIDE) for left, top, right, bottom in boxes]
    return final, Truth(
        concept=concept,
        count=number,
        colour=_colour_under(final, mask),
        setting=setting,
        aspect=aspect,
        x=sum(x for x, _ in centres) / number,
        y=sum(y for _, y in centres) / number,
        extent=sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) / SIDE**2,
    )


def held_combination(concept: Concept, count: int) -> bool:
    """Whether no training picture shows this thing in this number: evaluation does.

    Some of two, three and four stay for training, or the decoder never sees the plural and cannot say it.
    """
    held = [number for number in (2, 3, 4) if hashlib.sha256(f"{concept.en} {number}".encode()).digest()[0] < 50]
    return count in (held if len(held) < 3 else held[1:])


def _number(concept: Concept, rng: random.Random) -> int:
    while held_combination(concept, number := rng.choices((1, 2, 3, 4), (50, 18, 17, 15))[0]):
        pass
    return number


def _places(rng: random.Random, number: int, aspect: float, shape: float) -> list[tuple[int, int, int, int]]:
    """Boxes in pixels of the squeezed square that overlap little."""
    low, high = {1: (0.32, 0.92), 2: (0.28, 0.5), 3: (0.24, 0.42), 4: (0.22, 0.38)}[number]
    size = rng.uniform(low, high)
    for attempt in range(60):
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(number):
            grown = size * rng.uniform(0.85, 1.15) * 0.97**attempt
            height = grown * min(1, 1 / shape) * min(1, aspect)
            width = height * shape / aspect
            scale = min(1, 0.96 / width, 0.96 / height)
            width, height = width * scale, height * scale
            left, top = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
            boxes.append(tuple(round(value * SIDE) for value in (left, top, left + width, top + height)))  # pyright: ignore
        if all(_overlap(a, b) < 0.06 for i, a in enumerate(boxes) for b in boxes[:i]):
            return boxes
    return boxes


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, wide) * max(0, high) / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _finish(image: Image.Image, rng: random.Random) -> Image.Image:
    """Light over the whole: dim or bright, warm or cool, rarely without colour."""
    if rng.random() < 0.45:
        image = ImageEnhance.Brightness(image).enhance(rng.choice((0.35, 0.45, 0.55, 0.7, 1.25, 1.5)))
    if rng.random() < 0.3:
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.55, 1.4))
    if rng.random() < 0.25:
        warm = rng.uniform(-0.2, 0.2)
        pixels = np.asarray(image, dtype=np.float32) * np.array([1 + warm, 1.0, 1 - warm])
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.06:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.8)))
    return image


def _colour_under(image: Image.Image, mask: Image.Image) -> str:
    chosen = np.asarray(image)[np.asarray(mask) > 0]
    if len(chosen) < 8:
        return ""
    return palette_of(lab_from_rgb(chosen[:: max(1, len(chosen) // 2000)]))[0].name
