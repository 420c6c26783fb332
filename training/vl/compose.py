"""Pictures with known facts: cut-outs on photographs and drawn scenes, in known number, place, colour and light."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from training.vl.concepts import Concept
from vl_service.colours import lab_from_rgb, palette_of

SIDE = 320  # pixels a side of the square that every picture is squeezed into, as the service does
_IN = (
    "wine",
    "bucket",
    "buffetset",
    "-pan",
    "pencil",
    "volleyball",
    "hammer",
    "measuringtape",
    "multimeter",
    "nailcutter",
    "plier",
    "scissors",
    "screwdriver",
    "sidecutter",
    "wrench",
    "solar2",
    "interior",
    "studio",
    "apartment",
    "hall",
    "-lab",
    "lobby",
    "warehouse",
    "workshop",
)
_UNCLEAR = ("gradient", "brushes", "fig", "bluemarble", "courtyard", "airplane-from", "acanthus", "allium", "friends")
_HAS_SUBJECT = (
    "fish",
    "friends",
    "crocodile",
    "moose",
    "panda",
    "raccoon",
    "bunny",
    "flower",
    "pastoral",
    *_IN[1:12],
    "fig",
    "acanthus",
    "allium",
    "airplane-from",
)
_GROUNDS = {
    "grass": (86, 140, 60),
    "sand": (214, 190, 140),
    "snow": (236, 240, 246),
    "sea": (40, 96, 150),
    "earth": (120, 90, 62),
    "field": (190, 170, 80),
    "road": (96, 96, 100),
}


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


def setting_of(name: str) -> str:
    """Where a photograph of the table was taken, by its name."""
    if "fish" in name:
        return "under water"
    if any(part in name for part in _UNCLEAR):
        return "unclear"
    return "indoors" if any(part in name for part in _IN) else "outdoors"


def for_evaluation(name: str) -> bool:
    """Whether a photograph is a background of evaluation pictures only."""
    return name in {
        "polyhaven-park",
        "polyhaven-lobby",
        "gcompris-dam3",
        "gcompris-windmill12",
        "polyhaven-workshop",
        "lomiri-picos",
        "blender-sunset",
        "gcompris-fish5",
        "polyhaven-city",
        "gcompris-plier2",
    }


def load_stock(folder: Path, concepts: list[Concept], *, evaluation: bool) -> Stock:
    """Photographs and cut-outs of `training/data/vl`; `evaluation` takes the backgrounds that training never sees."""
    photographs = tuple(
        (file.stem, Image.open(file).convert("RGB"))
        for file in sorted((folder / "photos").glob("*.jpg"))
        if for_evaluation(file.stem) == evaluation
    )
    names = {name for concept in concepts for name in (*concept.files, *concept.held_files)}
    cutouts = {name: Image.open(folder / name).convert("RGBA") for name in sorted(names)}
    return Stock(photographs=photographs, cutouts=cutouts, concepts=tuple(concepts))


def compose(
    stock: Stock, rng: random.Random, concept: int | None, *, held: bool = False, count: int | None = None
) -> tuple[Image.Image, Truth]:
    """One square picture and its truth; `concept` indexes `stock.concepts`, `None` leaves the scene empty."""
    aspect = rng.choice((1.0, 1.5, 1.33, 1.78, 0.75, 0.67, 0.56)) if rng.random() < 0.8 else rng.uniform(0.55, 1.8)
    canvas, setting = _background(stock, rng, aspect)
    if concept is None:
        return _finish(canvas, rng), Truth(
            concept=-1, count=0, colour="", x=0.5, y=0.5, extent=0.0, setting=setting, aspect=aspect
        )
    entry = stock.concepts[concept]
    cutout = stock.cutouts[rng.choice(entry.held_files if held else entry.files)]
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
        mask.paste(255, (left, top), piece.getchannel("A").point(lambda value: 255 * (value > 160)))
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
    """Whether no training picture shows this thing in this number: evaluation does."""
    return count > 1 and hashlib.sha256(f"{concept.en} {count}".encode()).digest()[0] < 50


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


def _background(stock: Stock, rng: random.Random, aspect: float) -> tuple[Image.Image, str]:
    chance = rng.random()
    if chance < 0.45:
        name, photo = rng.choice(stock.photographs)
        short = min(photo.width / aspect, photo.height)
        height = short * rng.uniform(0.45, 1.0)
        width = height * aspect
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        crop = photo.resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height), reducing_gap=2.0
        )
        if any(part in name for part in _HAS_SUBJECT):  # else there would be two subjects and one truth
            crop = crop.filter(ImageFilter.GaussianBlur(rng.uniform(4, 10)))
        elif rng.random() < 0.3:
            crop = crop.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop, setting_of(name)
    if chance < 0.65:
        return _plain(rng), "unclear"
    if chance < 0.85:
        return _land(rng), "outdoors"
    if chance < 0.96:
        return _room(rng), "indoors"
    return _texture(rng), "unclear"


def _plain(rng: random.Random) -> Image.Image:
    colour = (
        tuple(rng.randrange(256) for _ in range(3))
        if rng.random() < 0.7
        else rng.choice(((255, 255, 255), (245, 245, 245), (0, 0, 0), (128, 128, 128), (230, 220, 200)))
    )
    return _noisy(Image.new("RGB", (SIDE, SIDE), colour), rng, 3.0)  # pyright: ignore[reportArgumentType]


def _ramp(top: tuple[int, ...], bottom: tuple[int, ...], height: int) -> NDArray[np.float32]:
    share = np.linspace(0, 1, max(1, height), dtype=np.float32)[:, None, None]
    return np.broadcast_to(np.array(top) * (1 - share) + np.array(bottom) * share, (max(1, height), SIDE, 3))


def _land(rng: random.Random) -> Image.Image:
    horizon = int(SIDE * rng.uniform(0.25, 0.75))
    sky = rng.choice(
        (
            ((90, 150, 230), (190, 220, 250)),
            ((60, 110, 200), (230, 200, 180)),
            ((150, 160, 175), (210, 214, 220)),
            ((12, 18, 50), (40, 50, 100)),
            ((230, 120, 70), (250, 210, 140)),
        )
    )
    ground = np.array(rng.choice(list(_GROUNDS.values()))) * rng.uniform(0.7, 1.1)
    lower = _ramp(tuple(ground * 1.1), tuple(ground * 0.8), SIDE - horizon).copy()
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 12, (SIDE - horizon, SIDE // 4, 1)).repeat(4, axis=1)
    pixels = np.concatenate([_ramp(*sky, horizon), lower + grain])
    return _noisy(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), rng, 3.0)


def _room(rng: random.Random) -> Image.Image:
    line = int(SIDE * rng.uniform(0.5, 0.85))
    wall = np.array([rng.randrange(120, 245) for _ in range(3)])
    floor = np.array(rng.choice(((150, 105, 65), (110, 75, 50), (180, 170, 160), (90, 90, 95), (200, 160, 110))))
    pixels = np.concatenate(
        [_ramp(tuple(wall), tuple(wall * 0.85), line), _ramp(tuple(floor * 0.8), tuple(floor * 1.1), SIDE - line)]
    )
    room = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(room)
    for _ in range(rng.randrange(4)):
        left, top = rng.randrange(SIDE), rng.randrange(max(1, line - 60))
        draw.rectangle(
            (left, top, left + rng.randrange(20, 110), min(line, top + rng.randrange(20, 110))),
            fill=tuple(rng.randrange(40, 240) for _ in range(3)),
        )
    return _noisy(room.filter(ImageFilter.GaussianBlur(rng.uniform(0, 3))), rng, 3.0)


def _texture(rng: random.Random) -> Image.Image:
    cells = rng.choice((4, 8, 16, 40))
    base = np.random.default_rng(rng.getrandbits(32)).normal(0, 40, (cells, cells, 3)) + [rng.randrange(60, 200)] * 3
    small = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _noisy(image: Image.Image, rng: random.Random, sigma: float) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, sigma * rng.random(), (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


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
