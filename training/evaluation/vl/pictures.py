"""Pictures that no training shows, and what is true of them: photographs, new compositions, things of no known kind."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.evaluation.vl.verdicts import Words, words_of_class, words_of_concept
from training.vl.pictures.compose import Stock, Truth, compose, held_combination, load_stock
from training.vl.pictures.concepts import Concept, load_concepts
from vl_service.embedded.vision.colours import lab_from_rgb, palette_of
from vl_service.embedded.vision.tower import ImageNetTower
from vl_service.images import DecodedImage

DATA = Path(__file__).parents[2] / "data" / "vl"
HOW_TO_FETCH = ("training/data/vl is absent; run python -m training.ingredients.fetch && "
                "python -m training.ingredients.pack && python -m training.vl.pack")
CUTOUTS = "cutouts/"  # where the video pack's drawings lie
NEW_DRAWING = " x1 "  # in the name of a composition; the others show a number that training never shows
SURE = 0.5  # the tower's probability from which a photograph's subject counts as known
CROP = 0.85  # of each side
LONG_SIDE_PX = 512
NEARLY_AS_MUCH = 0.05  # of the picture: two colours this close are both the dominant one
GREY_CHROMA = 3.0  # mean CIELAB chroma under which a picture has no colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture to describe. `words` may name its subject; `truth` and `concept` are known of compositions."""

    name: str
    picture: DecodedImage
    colours: frozenset[str]
    """Families of the dominant colours, in English; of several nearly equal ones each is right."""
    words: Words
    truth: Truth | None = None
    concept: Concept | None = None


def dominant_colours(picture: Image.Image) -> frozenset[str]:
    """Families of the picture's commonest colours ("dark blue" is blue); black, white and grey of a grey picture."""
    lab = lab_from_rgb(np.asarray(picture.resize((128, 128), Image.Resampling.BOX))).reshape(-1, 3)
    if float(np.hypot(lab[:, 1], lab[:, 2]).mean()) < GREY_CHROMA:
        return frozenset({"black", "white", "grey"})
    shares: dict[str, float] = {}
    for colour in palette_of(lab, at_most=21, least_share=0.0):
        family = colour.name.split()[-1]
        shares[family] = shares.get(family, 0.0) + colour.share
    most = max(shares.values())
    first = palette_of(lab)[0].name.split()[-1]  # of "dark blue", "blue" and "black" the single largest is right too
    return frozenset({first, *(family for family, share in shares.items() if share >= most - NEARLY_AS_MUCH)})


def photographs(tower: ImageNetTower, views: int = 5) -> Iterator[Shown]:
    """scikit-image's photographs whole, mirrored and cropped, where the tower gives its best class SURE or more.

    At most `views` of each.
    """
    import skimage.data

    for file in sorted(Path(skimage.data.__file__).parent.iterdir()):
        if file.suffix not in (".png", ".jpg"):
            continue
        for number, view in enumerate(_views(Image.open(file).convert("RGB"))[:views]):
            probabilities = tower.classify(view)
            best = int(probabilities.argmax())
            if probabilities[best] >= SURE:
                yield Shown(name=f"{file.stem}-{number}", picture=_picture(view), colours=dominant_colours(view),
                            words=words_of_class(best))
            elif number == 0:
                break  # its crops are as unclear


def _views(whole: Image.Image) -> list[Image.Image]:
    width, height = round(whole.width * CROP), round(whole.height * CROP)
    corners = [(0, 0), (whole.width - width, whole.height - height),
               ((whole.width - width) // 2, (whole.height - height) // 2)]
    return [whole, ImageOps.mirror(whole), *(whole.crop((x, y, x + width, y + height)) for x, y in corners)]


def _picture(image: Image.Image) -> DecodedImage:
    return DecodedImage(rgb=image, width=image.width, height=image.height)


def load_evaluation_stock(folder: Path) -> Stock | None:
    """The video pack's cut-outs, and the backgrounds that training never sees; None where the folder is absent.

    Other sets' drawings, and things that only they show, are left out, so that checkpoints can be compared.
    """
    if not (folder / "concepts.json").exists():
        return None
    stripped = [replace(concept, files=tuple(file for file in concept.files if file.startswith(CUTOUTS)))
                for concept in load_concepts(folder / "concepts.json")]
    return load_stock(folder, [concept for concept in stripped if concept.files], evaluation=True)


def compositions(stock: Stock, count: int, seed: int = 0) -> Iterator[Shown]:
    """Known subjects as training never shows them: in turn a drawing held out, and a number held out of two to four."""
    rng = random.Random(seed)
    known = [(at, concept) for at, concept in enumerate(stock.concepts) if concept.role == "known"]
    drawings = [(at, 1, True) for at, concept in known if concept.held_files]
    numbers = [(at, number, False) for at, concept in known if not concept.plural
               for number in (2, 3, 4) if held_combination(concept, number)]
    rng.shuffle(drawings)
    rng.shuffle(numbers)
    for turn in range(count):
        pool = numbers if turn % 2 else drawings
        at, number, held = pool[turn // 2 % len(pool)]
        yield _composed(stock, random.Random(f"{seed} {turn}"), at, number, held)


def strangers(stock: Stock, count: int, seed: int = 0) -> Iterator[Shown]:
    """Things that are in no training picture, one to a picture."""
    held = [at for at, concept in enumerate(stock.concepts) if concept.role == "held"]
    random.Random(seed).shuffle(held)
    for turn in range(count):
        yield _composed(stock, random.Random(f"strange {seed} {turn}"), held[turn % len(held)], 1, False)


def _composed(stock: Stock, rng: random.Random, at: int, number: int, held: bool) -> Shown:
    square, truth = compose(stock, rng, at, held=held, count=number)
    concept = stock.concepts[at]
    short = (min(truth.aspect, 1 / truth.aspect) * LONG_SIDE_PX)
    size = (LONG_SIDE_PX, round(short)) if truth.aspect >= 1 else (round(short), LONG_SIDE_PX)
    image = square.resize(size, Image.Resampling.BICUBIC)
    return Shown(
        name=f"{concept.en} x{number} {hashlib.sha256(image.tobytes()).hexdigest()[:6]}", picture=_picture(image),
        colours=dominant_colours(image), words=words_of_concept(concept), truth=truth, concept=concept,
    )
