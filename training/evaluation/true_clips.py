"""Clips whose camera motion is known, each frame cut out of a larger photograph: what the judge is held to."""

import cv2
import numpy as np
from numpy.typing import NDArray

# Over the whole clip: share of the side for pan and tilt, natural logarithm for zoom, radians for rotation.
AMOUNTS = {
    "slow": {"zoom": 0.14, "pan": 0.13, "tilt": 0.13, "rotate": 0.13},
    "normal": {"zoom": 0.30, "pan": 0.27, "tilt": 0.27, "rotate": 0.30},
    "fast": {"zoom": 0.52, "pan": 0.45, "tilt": 0.45, "rotate": 0.58},
}
_SIGN = {"in": 1, "out": -1, "cw": 1, "ccw": -1, "right": 1, "left": -1, "down": 1, "up": -1}


def true_clip(
    photograph: NDArray[np.uint8], motion: str, speed: str, frames: int, size: int, detail: float = 1.0
) -> NDArray[np.uint8]:
    """Frames [frames, size, size, 3] of a camera moving over an RGB photograph about its centre.

    `detail` is how many of the photograph's short sides a frame's side would need: 0.5 shows half of it.
    """
    family, _, way = motion.partition("_")
    amount = 0.0 if motion == "hold" else AMOUNTS[speed][family] * _SIGN[way]
    scale = size / (min(photograph.shape[:2]) * detail)
    sampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    source = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=sampling)
    middle_x, middle_y = (source.shape[1] - 1) / 2, (source.shape[0] - 1) / 2
    clip = []
    for part in np.linspace(0, 1, frames):
        zoom = np.exp(-amount * part) if family == "zoom" else 1.0
        turn = -amount * part if family == "rotate" else 0.0  # content turned by +t shows at p what lies at R(-t) p
        camera_x = amount * part * size if family == "pan" else 0.0
        camera_y = amount * part * size if family == "tilt" else 0.0
        turned = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        origin = np.array([middle_x + camera_x, middle_y + camera_y]) - turned @ np.full(2, (size - 1) / 2)
        matrix = np.concatenate([turned, origin[:, None]], axis=1)
        clip.append(cv2.warpAffine(
            source, matrix, (size, size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ))
    return np.stack(clip).astype(np.uint8)
