"""Scenes without a subject: parts of photographs, plain grounds, land under sky, rooms, textures."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

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


def background(
    photographs: Sequence[tuple[str, Image.Image]], rng: random.Random, aspect: float
) -> tuple[Image.Image, str]:
    """A square scene without a subject, of a part of a photograph or drawn, and its setting."""
    chance = rng.random()
    if chance < 0.45:
        name, photo = rng.choice(photographs)
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
