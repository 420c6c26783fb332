"""What a checkpoint is asked in an evaluation: photographs that training never sees, and wordings of nine motions."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

# Every colour photograph that scikit-image ships (its licence file names their sources), easiest subject first.
PHOTOGRAPHS = {
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "astronaut": "astronaut.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "hubble": "hubble_deep_field.jpg",
    "tissue": "ihc.png",
    "retina": "retina.jpg",
}
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})

WORDINGS = {
    "zoom_in": (
        "the camera slowly zooms in", "镜头缓缓推近", "zoom in", "A slow push in toward the subject.",
        "a photo. The camera zooms in gently, soft light.", "镜头拉近",
    ),
    "zoom_out": (
        "slow zoom out", "镜头慢慢拉远", "The camera pulls back.", "zoom out",
        "a photo. The camera slowly zooms out.", "镜头拉远",
    ),
    "pan_left": (
        "pan to the left", "镜头向左平移", "The camera pans left.", "slow pan left",
        "a photo. The camera slowly pans to the left.", "镜头缓缓向左摇",
    ),
    "pan_right": (
        "pan to the right", "镜头向右平移", "The camera pans right.", "slow pan right",
        "a photo. The camera slowly pans to the right.", "镜头缓缓向右摇",
    ),
    "tilt_up": (
        "the camera tilts up", "镜头向上移动", "pan up", "slow tilt up",
        "a photo. The camera slowly tilts up.", "镜头缓缓向上摇",
    ),
    "tilt_down": (
        "the camera tilts down", "镜头向下移动", "pan down", "slow tilt down",
        "a photo. The camera slowly tilts down.", "镜头缓缓向下摇",
    ),
    "rotate_cw": (
        "the picture rotates clockwise", "画面顺时针旋转", "rotate clockwise", "slow clockwise rotation",
        "a photo. The picture slowly rotates clockwise.", "画面缓缓顺时针旋转",
    ),
    "rotate_ccw": (
        "the picture rotates counterclockwise", "画面逆时针旋转", "rotate counter-clockwise",
        "slow anticlockwise rotation", "a photo. The picture slowly rotates counterclockwise.", "画面缓缓逆时针旋转",
    ),
    "hold": (
        "the camera holds still", "镜头静止不动", "hold still", "static shot, nothing moves",
        "a photo. The camera does not move.", "画面静止",
    ),
}
MOTIONS = tuple(WORDINGS)  # the judge's own; it is not imported, so that a machine without OpenCV can render
HELD_OUT: dict[str, dict[str, list[str]]] = tomllib.loads(
    Path(__file__).with_name("held_out.toml").read_text(encoding="utf-8"))

Ask = Literal["single", "paraphrase", "chinese", "many_steps"]
ASKS: tuple[Ask, ...] = ("single", "paraphrase", "chinese", "many_steps")
MANY_STEPS = 32
MANY_STEPS_PHOTOS = 2  # 32 steps cost eight times as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to render; `steps` where it is not the number that the whole evaluation takes."""

    picture: str
    motion: str
    prompt: str
    seed: int
    asked: Ask = "single"
    steps: int | None = None

    @property
    def name(self) -> str:
        """File name, unique within an evaluation."""
        name = f"{self.picture}-{self.motion}-{self.seed}"
        return name if self.asked == "single" else f"{self.asked}-{name}"


def load_photographs(folder: Path | None, names: list[str] | None, limit: int | None) -> dict[str, Image.Image]:
    """The photographs in RGB by name: scikit-image's, or every picture of `folder`.

    Raises KeyError for a name that is not among them.
    """
    if folder is None:
        import skimage.data  # needed here only: a folder of pictures does without it

        root = Path(skimage.data.__file__).parent
        files = {name: root / file for name, file in PHOTOGRAPHS.items()}
    else:
        files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in PICTURE_SUFFIXES}
    chosen = (names or list(files))[:limit]
    return {name: Image.open(files[name]).convert("RGB") for name in chosen}


def make_cases(
    pictures: list[str], motions: list[str], wordings: int, seed: int, language: str = "any",
    asks: tuple[Ask, ...] = ("single",),
) -> list[Case]:
    """`wordings` cases for every ask, picture and motion; the wording moves on from picture to picture.

    `single` asks in WORDINGS of one `language` ("en", "zh" or "any"); `paraphrase` and `chinese` in the English and
    the Chinese of held_out.toml; `many_steps` repeats the `single` cases of the first pictures with MANY_STEPS steps.
    Raises ValueError for a motion that is not among MOTIONS.
    """
    unknown = set(motions) - set(MOTIONS)
    if unknown:
        raise ValueError(f"unknown motions {sorted(unknown)}; choose from {', '.join(MOTIONS)}")
    return [
        Case(picture=picture, motion=motion, seed=seed + turn, asked=ask,
             steps=MANY_STEPS if ask == "many_steps" else None,
             prompt=ways[(position + MOTIONS.index(motion) + turn) % len(ways)])
        for ask in asks
        for position, picture in enumerate(pictures[:MANY_STEPS_PHOTOS] if ask == "many_steps" else pictures)
        for motion in motions
        for ways in [_ways(motion, ask, language)]
        for turn in range(wordings)
    ]


def _ways(motion: str, ask: Ask, language: str) -> list[str]:
    if ask in ("paraphrase", "chinese"):
        return HELD_OUT[motion]["zh" if ask == "chinese" else "en"]
    return [text for text in WORDINGS[motion] if language == "any" or text.isascii() == (language == "en")]
