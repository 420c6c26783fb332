"""Rain, snow and fog that set in over a picture.

The same pattern in each clip: words cannot say where a drop is, and a few-step sampler would blur what is left open.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F

WEATHER = ("rain", "snow", "fog")
_COLOUR = {"rain": (0.82, 0.86, 0.93), "snow": (1.0, 1.0, 1.0), "fog": (0.83, 0.85, 0.87)}
_FALL = {"slow": 0.6, "normal": 1.0, "fast": 1.6}  # of the pace at normal speed
_SETS_IN = 10  # frames; the first frame is the picture alone


def _particles(count: int, height: int, width: int, frames: int, pace: float, sway: float, seed: int) -> torch.Tensor:
    """[T, count, 2] places (y, x); each falls at its own pace and comes back at the top."""
    make = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=make) * torch.tensor([1.2 * height, width])
    own = pace * height * (0.75 + 0.5 * torch.rand(count, generator=make))
    phase = 6.28 * torch.rand(count, generator=make)
    t = torch.arange(frames).view(-1, 1)
    y = (start[:, 0] + own * t) % (1.2 * height) - 0.1 * height
    x = (start[:, 1] + sway * width * (torch.sin(0.2 * t + phase) + 0.12 * t)) % width
    return torch.stack([y, x], dim=-1)


def _drawn(places: torch.Tensor, height: int, width: int, tall: float, wide: float) -> torch.Tensor:
    """[T, H, W] soft ellipses of the given radii in pixels."""
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, -1, 1)
    near_y = torch.exp(-(((y - places[:, None, :, 0]) / tall) ** 2))
    near_x = torch.exp(-(((x - places[:, None, :, 1]) / wide) ** 2))
    return torch.einsum("thn,twn->thw", near_y, near_x).clamp(0, 1)


@lru_cache(maxsize=64)
def pattern(kind: str, speed: str, frames: int, height: int, width: int) -> torch.Tensor:
    """Opacity [T, H, W] in 0..1, nothing in frame 0."""
    short, pace = min(height, width), _FALL[speed]
    if kind == "fog":
        make = torch.Generator().manual_seed(5)
        coarse = torch.rand(1, 1, 6, 24, generator=make)
        cloud = F.interpolate(coarse, size=(height, 4 * width), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
        shift = [round(float(t) * 0.012 * pace * width) for t in range(frames)]
        opacity = 0.25 + 0.6 * torch.stack([cloud[:, s:s + width] for s in shift])
        grows = torch.linspace(0, 1, frames).view(-1, 1, 1) ** 0.8
        return opacity * grows
    if kind == "rain":
        places = _particles(70, height, width, frames, 0.055 * pace, 0.0, seed=1)
        opacity = 0.6 * _drawn(places, height, width, tall=0.045 * short, wide=max(0.9, 0.005 * short))
    else:
        far = _drawn(_particles(70, height, width, frames, 0.014 * pace, 0.02, seed=2), height, width,
                     max(1.3, 0.009 * short), max(1.3, 0.009 * short))
        near = _drawn(_particles(28, height, width, frames, 0.022 * pace, 0.03, seed=3), height, width,
                      max(1.8, 0.016 * short), max(1.8, 0.016 * short))
        opacity = (0.8 * far + 0.95 * near).clamp(0, 0.95)
    return opacity * (torch.arange(frames) / _SETS_IN).clamp(0, 1).view(-1, 1, 1)


def cover(video: torch.Tensor, motions: list[tuple[str, ...]], speeds: list[str]) -> torch.Tensor:
    """Lay each clip's weather over `video` [B, T, 3, H, W] in 0..1."""
    frames, height, width = video.shape[1], *video.shape[3:]
    rows = []
    for row, names, speed in zip(video, motions, speeds, strict=True):
        kind = next((name for name in names if name in WEATHER), None)
        if kind is None:
            rows.append(row)
            continue
        opacity = pattern(kind, speed, frames, height, width).to(video.device)[:, None]
        colour = torch.tensor(_COLOUR[kind], device=video.device).view(1, 3, 1, 1)
        rows.append(row * (1 - opacity) + colour * opacity)
    return torch.stack(rows)
