"""Photographs that anybody may use: Chelsea the cat (as `stillmotion demo` shows her), a cup of coffee (Rachel
Michetti; CC0), an astronaut (NASA; public domain), a rocket before a blue sky (SpaceX; public domain)."""

from pathlib import Path

from PIL import Image

from gateway.cli.serving.demo import default_picture

_FOLDER = Path(__file__).resolve().parents[1] / "data" / "photographs"


def photograph(name: str) -> Image.Image:
    """`chelsea`, `coffee`, `astronaut` or `rocket`, in RGB."""
    with Image.open(default_picture() if name == "chelsea" else _FOLDER / f"{name}.jpg") as image:
        return image.convert("RGB")
