"""Drawings in another hand: of most things there are one to three, and a decoder learns those by heart."""

import random

from PIL import Image, ImageEnhance

TURN_DEGREES = 35


def redrawn(cutout: Image.Image, rng: random.Random) -> Image.Image:
    """A drawing as training did not show it: turned, in other colours, or with a part of it missing."""
    turned = cutout.rotate(rng.uniform(-TURN_DEGREES, TURN_DEGREES), Image.Resampling.BICUBIC, expand=True)
    hue, saturation, value = turned.convert("RGB").convert("HSV").split()
    turn = rng.choice((0, 0, rng.randrange(256)))
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    other = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    other = ImageEnhance.Contrast(other).enhance(rng.uniform(0.6, 1.4))
    other.putalpha(turned.getchannel("A"))
    if rng.random() < 0.4:
        keep = rng.uniform(0.65, 0.9)
        left, top = rng.uniform(0, 1 - keep) * other.width, rng.uniform(0, 1 - keep) * other.height
        right, bottom = left + keep * other.width, top + keep * other.height
        other = other.crop((round(left), round(top), round(right), round(bottom)))
    return other.crop(other.getchannel("A").getbbox())
