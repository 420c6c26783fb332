"""Photographs that anybody may use: Chelsea the cat (as `stillmotion demo` shows her), a cup of coffee (Rachel
Michetti; CC0), an astronaut (NASA; public domain), a rocket before a blue sky (SpaceX; public domain)."""

from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
# Named, not asked of the command, which would be imported by tests of models.
_CAT = REPOSITORY / "gateway" / "cli" / "serving" / "chelsea.png"
_FOLDER = REPOSITORY / "tests" / "data" / "photographs"


def photograph(name: str) -> Image.Image:
    """`chelsea`, `coffee`, `astronaut` or `rocket`, in RGB."""
    with Image.open(_CAT if name == "chelsea" else _FOLDER / f"{name}.jpg") as image:
        return image.convert("RGB")
