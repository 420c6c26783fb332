"""Which motions fit a picture, best first; the seed breaks ties."""

import random

from vl_service.motion import Motion, Speed
from vl_service.scene import Scene

Candidate = tuple[float, str, Speed]  # weight, motion, speed

_ANYTHING: tuple[Candidate, ...] = (
    (1.6, "zoom_in", "slow"), (1.2, "zoom_out", "slow"), (0.8, "pan_left", "slow"), (0.8, "pan_right", "slow"),
    (0.1, "hold_still", "normal"),
)
_BY_GROUP: dict[str, tuple[Candidate, ...]] = {
    "light": ((3.0, "flickers", "slow"),),
    "flyer": ((2.8, "rises", "slow"), (2.0, "tilt_up", "slow")),
    "ball": ((2.2, "bounces", "normal"),),
    "plant": ((2.2, "sways", "slow"),),
    "water_place": ((3.2, "ripples", "slow"), (2.4, "pan_left", "slow"), (2.4, "pan_right", "slow")),
    "boat": ((2.6, "sways", "slow"), (2.4, "ripples", "slow"), (2.0, "drifts_left", "slow"),
             (2.0, "drifts_right", "slow")),
    "vehicle": ((2.0, "drifts_left", "normal"), (2.0, "drifts_right", "normal")),
    "sea": ((2.2, "drifts_left", "slow"), (2.2, "drifts_right", "slow")),
    "land": ((2.8, "pan_left", "slow"), (2.8, "pan_right", "slow"), (1.5, "zoom_out", "slow")),
    "building": ((2.3, "tilt_up", "slow"), (1.8, "zoom_out", "slow")),
    "room": ((2.3, "pan_left", "slow"), (2.3, "pan_right", "slow")),
}


def fitting_motions(scene: Scene | None, seed: int) -> list[Motion]:
    """Distinct motions for a picture, the most fitting first; without a picture, camera moves that suit anything."""
    candidates = list(_ANYTHING)
    if scene is not None:
        candidates += _by_layout(scene)
        if scene.subject is not None or scene.group_is_sure:
            candidates += _BY_GROUP.get(scene.group, ())
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate[0] > best.get(candidate[1], (0.0, "", "slow"))[0]:
            best[candidate[1]] = candidate
    rng = random.Random(seed)
    ranked = sorted(best.values(), key=lambda candidate: (-candidate[0], rng.random()))
    return [Motion(name=name, speed=speed) for _, name, speed in ranked]


def _by_layout(scene: Scene) -> list[Candidate]:
    layout = scene.facts.layout
    weights: dict[str, float] = {}
    if layout.water > 0.12:
        weights["ripples"] = 3.0
    if layout.horizon is not None and layout.backdrop is None and scene.shape != "portrait":
        weights["pan_left"] = weights["pan_right"] = 2.6 if scene.shape == "landscape" else 1.9
    elif scene.subject is None and layout.detail_area > 0.55:
        weights["pan_left"] = weights["pan_right"] = 1.7
    if scene.shape == "portrait":
        weights["tilt_up"], weights["tilt_down"] = (1.4, 2.4) if scene.level == "top" else (2.4, 1.4)
    if scene.subject is not None and scene.side == "centre":
        # into a subject that already fills the picture there is nowhere to go
        weights["zoom_out" if scene.extent > 0.55 else "zoom_in"] = 2.1
    return [(weight, name, "slow") for name, weight in weights.items()]
