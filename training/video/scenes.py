"""Synthesises clips on the training device, with exact motion labels.

World coordinates are output pixels of frame 0, origin at the frame's centre, y down. A camera term is named as a person
filming would: `pan_left` turns the camera left, so content moves right; `tilt_up` moves content down. `rotate_cw` turns
the *content* clockwise as seen on screen.
"""

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.video.bank import Bank
from training.video.weather import WEATHER, cover

CAMERA = ("zoom_in", "zoom_out", "pan_left", "pan_right", "tilt_up", "tilt_down", "rotate_cw", "rotate_ccw", "hold",
          "handheld", "orbit_left", "orbit_right")
OBJECT = ("drift_left", "drift_right", "rise", "fall", "bounce", "sway", "spin", "pulse")
AMBIENCE = ("ripple", "flicker", "darken", "brighten", *WEATHER)
MOTIONS = CAMERA + OBJECT + AMBIENCE
SPEEDS = ("slow", "normal", "fast")
PAIR_SHARE = 0.2
REFERENCE_FRAMES = 33  # strengths below are totals over a clip of this many frames

# The total change over 33 frames at slow, normal and fast (fractions of the frame, log zoom, radians). One value a
# speed: the words must determine the clip, or a few-step sampler averages over what they leave open and blurs.
STRENGTH = {
    "zoom": (0.16, 0.32, 0.52),
    "pan": (0.15, 0.27, 0.45),
    "rotate": (0.15, 0.30, 0.58),
    "orbit": (0.16, 0.30, 0.45),
    "drift": (0.17, 0.33, 0.52),
    "spin": (0.8, 1.8, 3.6),
}

BACKDROPS = {  # name: RGB in 0..1, for scenes made from words alone
    "red": (0.85, 0.18, 0.16), "orange": (0.96, 0.55, 0.15), "yellow": (0.97, 0.85, 0.25), "green": (0.25, 0.65, 0.3),
    "blue": (0.2, 0.4, 0.85), "light blue": (0.6, 0.8, 0.97), "purple": (0.5, 0.3, 0.7), "pink": (0.97, 0.65, 0.75),
    "brown": (0.5, 0.33, 0.2), "white": (0.96, 0.96, 0.96), "grey": (0.55, 0.55, 0.55), "black": (0.06, 0.06, 0.08),
}


Motions = tuple[str, ...]  # one motion, or two that go together


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """`video` [B, 3, T, H, W] in [-1, 1]; motions, one speed, cut-out and backdrop a clip (-1 for none).

    `camera` [B, T, 2, 3]: the world point that each pixel shows, from its place about the frame's centre, orbits apart.
    """

    video: torch.Tensor
    camera: torch.Tensor
    motions: list[Motions]
    speed: list[str]
    cutout: list[int]
    backdrop: list[int]


def _uniform(bounds: tuple[float, float], n: int, device: str) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(n, device=device)


def _strength(family: str, speeds: list[str], device: str) -> torch.Tensor:
    return torch.tensor([STRENGTH[family][SPEEDS.index(s)] for s in speeds], device=device)


def _wobble(t: torch.Tensor, waves: tuple[tuple[float, float], ...]) -> torch.Tensor:
    """[1, T] mean of sines of (radians a frame, phase), zero at frame 0; irregular, the same in each clip."""
    parts = [torch.sin(rate * t + phase) - math.sin(phase) for rate, phase in waves]
    return (torch.stack(parts).mean(0))[None]


def _matrices(camera: dict[str, torch.Tensor]) -> torch.Tensor:
    """[B, T, 2, 3] of zoom, turn and path."""
    cos, sin, scale = camera["angle"].cos(), camera["angle"].sin(), torch.exp(-camera["log_zoom"])
    rows = [torch.stack([cos * scale, sin * scale, camera["dx"]], -1),
            torch.stack([-sin * scale, cos * scale, camera["dy"]], -1)]
    return torch.stack(torch.broadcast_tensors(*rows), dim=-2)


def _mask(motions: list[Motions], wanted: str, device: str) -> torch.Tensor:
    return torch.tensor([wanted in names for names in motions], device=device, dtype=torch.float32)


def draw_motions(rng: random.Random) -> Motions:
    """One motion, or two that go together: two different kinds of camera motion, or motions of two families."""
    first, second = _draw(rng), _draw(rng)
    alike = _family(first) == _family(second) != CAMERA or first.split("_")[0] == second.split("_")[0]
    if alike or "hold" in (first, second) or rng.random() > PAIR_SHARE:
        return (first,)
    return (first, second)


def _draw(rng: random.Random) -> str:
    return rng.choice(rng.choices((CAMERA, OBJECT, AMBIENCE), (0.68, 0.18, 0.14))[0])


def _family(motion: str) -> tuple[str, ...]:
    return next(family for family in (CAMERA, OBJECT, AMBIENCE) if motion in family)


class SceneMaker:
    """Draws batches of clips from a bank; `seed` makes the choice of motions repeatable."""

    def __init__(self, bank: Bank, device: str) -> None:
        self.bank = bank
        self.device = device

    def make(self, motions: list[Motions], speeds: list[str], frames: int, height: int, width: int,
             plain: torch.Tensor | None = None) -> Clips:
        """One clip per motion; `plain` [B] bool asks for a plain backdrop with one cut-out (a scene words can tell)."""
        n, dev = len(motions), self.device
        plain = torch.zeros(n, dtype=torch.bool, device=dev) if plain is None else plain
        t = torch.arange(frames, device=dev, dtype=torch.float32)
        part = (t / (REFERENCE_FRAMES - 1))[None]
        camera = self._camera(motions, speeds, part, t, height, width)
        moving = torch.tensor([any(name in OBJECT for name in names) for names in motions], device=dev)
        has_object = moving | plain | (torch.rand(n, device=dev) < 0.25)
        world = self._world_grid(camera, height, width)
        world = self._ripple(world, _mask(motions, "ripple", dev), t, height)
        video, backdrop = self._background(world, camera, plain, height, width)
        cutout = torch.randint(len(self.bank.names), (n,), device=dev)
        video = self._paste(video, world, cutout, has_object, plain,
                            self._object(motions, speeds, part, t, height, width))
        video = cover(video * self._light(motions, part, t), motions, speeds)
        video = (video.clamp(0, 1) * 2 - 1).permute(0, 2, 1, 3, 4)
        return Clips(
            video=video, camera=_matrices(camera), motions=motions, speed=speeds,
            cutout=[int(c) if h else -1 for c, h in zip(cutout, has_object, strict=True)], backdrop=backdrop,
        )

    def _camera(self, motions, speeds, part, t, height, width) -> dict[str, torch.Tensor]:
        n, dev = len(motions), self.device
        zoom = _strength("zoom", speeds, dev)[:, None] * part
        log_zoom = (_mask(motions, "zoom_in", dev) - _mask(motions, "zoom_out", dev))[:, None] * zoom
        pan = _strength("pan", speeds, dev)[:, None] * part
        dx = (_mask(motions, "pan_right", dev) - _mask(motions, "pan_left", dev))[:, None] * pan * width
        dy = (_mask(motions, "tilt_down", dev) - _mask(motions, "tilt_up", dev))[:, None] * pan * height
        turn = _strength("rotate", speeds, dev)[:, None] * part
        angle = (_mask(motions, "rotate_cw", dev) - _mask(motions, "rotate_ccw", dev))[:, None] * turn
        shake = _mask(motions, "handheld", dev)[:, None]
        dx = dx + shake * _wobble(t, ((0.31, 0.0), (0.57, 1.9))) * 0.03 * width
        dy = dy + shake * _wobble(t, ((0.43, 2.6), (0.71, 0.4))) * 0.025 * width
        angle = angle + shake * _wobble(t, ((0.37, 1.2), (0.5, 3.0))) * 0.02
        yaw = _strength("orbit", speeds, dev)[:, None] * part
        yaw = (_mask(motions, "orbit_right", dev) - _mask(motions, "orbit_left", dev))[:, None] * yaw
        log_zoom, yaw = log_zoom.expand(n, len(t)), yaw.expand(n, len(t))
        return {"log_zoom": log_zoom, "dx": dx, "dy": dy, "angle": angle, "yaw": yaw}

    def _world_grid(self, camera, height, width) -> torch.Tensor:
        """[B, T, H, W, 2]: which world point each output pixel shows."""
        ys = torch.arange(height, device=self.device) - (height - 1) / 2
        xs = torch.arange(width, device=self.device) - (width - 1) / 2
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        shape = (*camera["dx"].shape, 1, 1)
        x, y = self._seen_from_the_side(x, y, camera["yaw"].view(shape), width)
        # Content turned by +angle (y down: clockwise) shows at p the point R(-angle) p.
        cos, sin = camera["angle"].cos().view(shape), camera["angle"].sin().view(shape)
        scale = torch.exp(-camera["log_zoom"]).view(shape)
        world_x = (cos * x + sin * y) * scale + camera["dx"].view(shape)
        world_y = (-sin * x + cos * y) * scale + camera["dy"].view(shape)
        return torch.stack([world_x, world_y], dim=-1)

    def _seen_from_the_side(self, x, y, yaw, width):
        """The picture as a plane that turns about its upright middle axis: the camera circles it."""
        distance = 1.3 * width
        world_x = x * distance / (distance * yaw.cos() + x * yaw.sin())
        return world_x, y * (distance - world_x * yaw.sin()) / distance

    def _ripple(self, world, on, t, height) -> torch.Tensor:
        if not on.any():
            return world
        depth = ((world[..., 1] + 0.05 * height) / (0.15 * height)).clamp(0, 1) * on.view(-1, 1, 1, 1)
        wave = torch.sin(world[..., 1] * (2 * math.pi / (0.09 * height)) - 0.45 * t.view(1, -1, 1, 1))
        wave = wave - torch.sin(world[..., 1] * (2 * math.pi / (0.09 * height)))  # frame 0 is the picture itself
        shift = torch.stack([0.35 * wave, wave], dim=-1) * (0.012 * height) * depth.unsqueeze(-1)
        return world + shift

    def _background(self, world, camera, plain, height, width):
        n, dev = len(plain), self.device
        small = max(height, width) <= 160
        source = self.bank.small if small else self.bank.canvases
        size = source.shape[-1]
        index = torch.randint(len(source), (n,), device=dev)
        picture = source[index].float() / 255
        flip = torch.rand(n, device=dev) < 0.5
        picture = torch.where(flip.view(n, 1, 1, 1), picture.flip(-1), picture)
        gain = 1 + (torch.rand(n, 3, 1, 1, device=dev) - 0.5) * 0.3
        gamma = torch.exp((torch.rand(n, 1, 1, 1, device=dev) - 0.5) * 0.7)
        picture = picture.clamp(1e-4, 1).pow(gamma) * gain
        backdrop_id = torch.randint(len(BACKDROPS), (n,), device=dev)
        colours = torch.tensor(list(BACKDROPS.values()), device=dev)[backdrop_id]
        ramp = torch.linspace(1.12, 0.82, size, device=dev).view(1, 1, size, 1)
        flat = (colours.view(n, 3, 1, 1) * ramp).expand(n, 3, size, size)
        picture = torch.where(plain.view(n, 1, 1, 1), flat, picture).clamp(0, 1)
        # Canvas pixels per output pixel: as many as keep the whole path inside. Fewer than one softens every frame,
        # and a model that only ever saw soft clips makes them of sharp pictures too.
        path = torch.stack([camera["dx"][:, -1], camera["dy"][:, -1]], dim=-1)
        reach = torch.exp((-camera["log_zoom"]).amax(1)) * max(height, width) + path.abs().amax(1)
        reach = reach * (1 + 0.9 * camera["yaw"].abs().amax(1))
        largest = (0.97 * size / reach).clamp(0.8, 1.4)
        least = largest.clamp(max=1.0)
        base = least + (largest - least) * torch.rand(n, device=dev)
        slack = (size / 2 - base * reach / 2).clamp(min=0)
        centre = (torch.rand(n, 2, device=dev) * 2 - 1) * slack[:, None] - path * base[:, None] / 2
        grid = (world * base.view(n, 1, 1, 1, 1) + centre.view(n, 1, 1, 1, 2)) * (2 / size)
        frames = world.shape[1]
        out = F.grid_sample(picture, grid.reshape(n, frames * height, width, 2), mode="bicubic",
                            padding_mode="reflection", align_corners=False)
        ids = [int(b) if p else -1 for b, p in zip(backdrop_id, plain, strict=True)]
        return out.view(n, 3, frames, height, width).permute(0, 2, 1, 3, 4), ids

    def _object(self, motions, speeds, part, t, height, width) -> dict[str, torch.Tensor]:
        """Per frame: centre (pixels), angle, and scale of the cut-out, in world coordinates."""
        n, dev = len(motions), self.device
        short = min(height, width)
        move = _strength("drift", speeds, dev)[:, None] * part
        rate = torch.tensor([(0.12, 0.2, 0.34)[SPEEDS.index(s)] for s in speeds], device=dev)[:, None]
        on = {name: _mask(motions, name, dev)[:, None] for name in OBJECT}
        dx = (on["drift_right"] - on["drift_left"]) * move * width
        bounce = (torch.sin(t * rate).abs() * 0.22) * short
        dy = (on["fall"] - on["rise"]) * move * height - on["bounce"] * bounce
        angle = on["sway"] * 0.3 * torch.sin(t * rate) + on["spin"] * _strength("spin", speeds, dev)[:, None] * part
        scale = torch.exp(on["pulse"] * 0.22 * torch.sin(t * rate * 1.4))
        start_x = (torch.rand(n, 1, device=dev) - 0.5) * 0.45 * width - 0.5 * dx[:, -1:]
        start_y = (torch.rand(n, 1, device=dev) - 0.5) * 0.4 * height - 0.5 * dy[:, -1:] * (1 - on["bounce"])
        size = _uniform((0.32, 0.68), n, dev)[:, None] * short
        return {"x": start_x + dx, "y": start_y + dy, "angle": angle, "size": size * scale}

    def _paste(self, video, world, cutout, has_object, plain, state):
        n, frames = state["x"].shape
        height, width = world.shape[2:4]
        if not has_object.any():
            return video
        shape = (n, frames, 1, 1)
        size = torch.where(plain[:, None], state["size"] * 1.25, state["size"])
        rel_x, rel_y = world[..., 0] - state["x"].view(shape), world[..., 1] - state["y"].view(shape)
        cos, sin = state["angle"].cos().view(shape), state["angle"].sin().view(shape)
        local = torch.stack([cos * rel_x + sin * rel_y, -sin * rel_x + cos * rel_y], dim=-1)
        grid = local * (2 / size.view(n, frames, 1, 1, 1))
        rgba = self.bank.cutouts[cutout].float() / 255
        rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1) * has_object.view(n, 1, 1, 1)
        out = F.grid_sample(rgba, grid.reshape(n, frames * height, width, 2), padding_mode="zeros", align_corners=False)
        out = out.view(n, 4, frames, height, width).permute(0, 2, 1, 3, 4)
        return video * (1 - out[:, :, 3:]) + out[:, :, :3]

    def _light(self, motions, part, t) -> torch.Tensor:
        """[B, T, 3, 1, 1] gain, one at frame 0."""
        n, dev = len(motions), self.device
        tint = torch.tensor([1.0, 0.9, 0.75], device=dev)
        dark = 1 - _mask(motions, "darken", dev).view(n, 1, 1) * 0.6 * part.view(1, -1, 1) / tint
        light = 1 + _mask(motions, "brighten", dev).view(n, 1, 1) * 0.6 * part.view(1, -1, 1)
        flicker = 1 + _mask(motions, "flicker", dev)[:, None] * 0.3 * _wobble(t, ((0.9, 0.3), (1.6, 2.0)))
        return (dark * light * flicker[..., None]).view(n, -1, 3, 1, 1)
