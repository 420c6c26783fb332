"""What a checkpoint is asked in an evaluation: photographs that training never sees, and wordings of nine motions."""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to render."""

    picture: str
    motion: str
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        """File name, unique within an evaluation."""
        return f"{self.picture}-{self.motion}-{self.seed}"


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
    pictures: list[str], motions: list[str], wordings: int, seed: int, language: str = "any"
) -> list[Case]:
    """`wordings` cases for every picture and motion; the wording moves on from picture to picture, so all get used.

    `language` is "en", "zh" or "any". Raises ValueError for a motion that is not among MOTIONS.
    """
    unknown = set(motions) - set(MOTIONS)
    if unknown:
        raise ValueError(f"unknown motions {sorted(unknown)}; choose from {', '.join(MOTIONS)}")
    ways = {motion: [text for text in WORDINGS[motion] if language == "any" or text.isascii() == (language == "en")]
            for motion in motions}
    return [
        Case(picture=picture, motion=motion, seed=seed + turn,
             prompt=ways[motion][(position + MOTIONS.index(motion) + turn) % len(ways[motion])])
        for position, picture in enumerate(pictures) for motion in motions for turn in range(wordings)
    ]
