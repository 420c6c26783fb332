"""What the tiny checkpoint of `tiny_wan.py` says of itself; needs no model library."""

from typing import Any

from contracts.models import IntRange, VideoModelInfo

TINY_CARD: dict[str, Any] = {
    "id": "tiny-wan",
    "profile": "embedded",
    "tasks": ["i2v", "t2v"],
    "sizes": ["64x64", "96x64", "64x96"],
    "min_side": 64,
    "max_pixels": 128 * 128,
    "num_frames": {"minimum": 1, "maximum": 33, "default": 9},
    "fps": {"minimum": 1, "maximum": 60, "default": 16},
    "steps": {"minimum": 1, "maximum": 50, "default": 2},
    "guidance_scale": {"minimum": 1.0, "maximum": 10.0, "default": 1.0},
    "samplers": ["euler", "unipc", "ode", "sde"],
    "flow_shift": 3.0,
    "max_sequence_length": 16,
}

TINY_INFO = VideoModelInfo.model_validate({
    name: value for name, value in TINY_CARD.items() if name in VideoModelInfo.model_fields
} | {
    "num_frames": TINY_CARD["num_frames"] | {"step": 4}, "size_multiple": 16, "text_tokens": 16, "family": "wan2.1",
    "batches": True,
    "sampler_steps": {name: IntRange(minimum=1, maximum=4, default=4) for name in ("ode", "sde")},
    "unguided_samplers": ["ode", "sde"], "revision": "r", "engine": "torch-cpu", "dtype": "float32",
})
"""As the service would tell it."""
