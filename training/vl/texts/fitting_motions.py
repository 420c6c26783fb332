"""Which motions of the video checkpoint's vocabulary fit a picture."""

import random

from training.vl.texts.sight import Sight
from vl_service.embedded.text.motions import Motion

_PLAIN = (("zoom_in", 1.6), ("zoom_out", 1.2), ("pan_left", 0.8), ("pan_right", 0.8))
_OF_GROUP = {
    "light": ("flickers",),
    "flyer": ("rises", "tilt_up"),
    "ball": ("bounces",),
    "plant": ("sways",),
    "boat": ("sways", "ripples"),
    "vehicle": ("drifts_left", "drifts_right"),
    "sea": ("drifts_left", "drifts_right"),
    "land": ("pan_left", "pan_right"),
    "building": ("tilt_up", "zoom_out"),
    "water_place": ("ripples",),
    "room": ("pan_left", "pan_right"),
}


def motions(sight: Sight, rng: random.Random) -> list[Motion]:
    """Motions of the trained vocabulary that fit, drawn without replacement; the first fits best."""
    weights = dict(_PLAIN)
    if sight.facts.layout.water > 0.12:
        weights["ripples"] = 8.0
    if sight.thing is not None and sight.count == 1:
        for name in _OF_GROUP.get(sight.thing.group, ()):
            weights[name] = 5.0
    if sight.shape == "portrait":
        weights["tilt_up"] = weights["tilt_down"] = 1.5
    if sight.size == "large":
        weights["zoom_out"] = 3.0
    names: list[str] = []
    while weights and len(names) < 4:
        name = rng.choices(list(weights), list(weights.values()))[0]
        names.append(name)
        del weights[name]
    return [Motion(name=name, speed="slow") for name in names]
