"""Texture of what moves: the transformer's last step and the VAE's decoder learn together against a discriminator.

The mean square leaves out whatever fine texture it cannot place to the pixel, so a few-step clip softens as soon as it
moves. Here the model's own few steps are taken (backward simulation, DMD2, Yin et al. 2024); what they end in is
decoded, and the pixels learn three things: what 4 x 4 means say, where the true clip has how much grain, and what a
discriminator of three frames in a row takes for true. The decoder also decodes true latents, whose clip it must give
back to the pixel; the encoder stays.

The discriminator is relativistic and paired, with penalties on its slope at true and made frames (R3GAN, Huang et al.
2024), which small noise measures (Lin et al. 2025); its gradient is scaled by the other losses', as in VQGAN (Esser et
al. 2021), but at the pixels.
"""

import copy
import random
from argparse import Namespace
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from training.fleet import Fleet
from training.models import latent_scale
from training.sharpen import FRAMES_SEEN, grain, in_a_row
from training.vae import Average
from training.whole_clip import decode

LATENT_PX = 4
MEAN_PX = 4
MEANS_PX = 9
WINDOWS = 10  # of three frames, a clip
NOISE = 0.02  # of pixels in [-1, 1]
SLOPE_WEIGHT = 100.0  # of the squared change that such noise makes to a score
DECODER_LR = 1e-4
OPPONENT_LR = 3e-4
EXACT_SHARE = 0.1  # of the error pixel for pixel, in the loss of generated frames
Told = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The same window of some clips: pixels [B, 3, T, H, W] in [-1, 1] and the true latents [B, 16, t, h, w]."""

    video: Tensor
    latents: Tensor


def new_opponent(width: int = 96) -> nn.Sequential:
    """Three frames in a row, [B, 9, H, W], to a map of scores [B, 1, H/8, W/8]; each sees 54 x 54 pixels."""
    sizes = (3 * FRAMES_SEEN, width, 2 * width, 4 * width)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(sizes[-1], sizes[-1], 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(sizes[-1], 1, 3, 1, 1)]
    return nn.Sequential(*layers)


class Texture:
    """The decoder, its opponent, and what both make of the latents that a transformer ends in."""

    def __init__(self, vae: AutoencoderKLWan, args: Namespace, fleet: Fleet) -> None:
        self.args, self.fleet = args, fleet
        self.vae = copy.deepcopy(vae).requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        self.learning = [p for p in self.vae.parameters() if p.requires_grad]
        self.opponent = new_opponent().to(args.device)
        self.ours = torch.optim.AdamW(self.learning, lr=DECODER_LR, betas=(0.5, 0.98), weight_decay=0)
        self.theirs = torch.optim.AdamW(self.opponent.parameters(), lr=OPPONENT_LR, betas=(0.0, 0.99), weight_decay=0)
        self.average = Average(self.vae, 0.998)
        self.mean, self.std = latent_scale(vae)
        self.decode = torch.compile(decode, dynamic=False) if args.compile else decode
        self.steps = 0

    def window(self, video_u8: Tensor, latents: Tensor) -> tuple[Clip, tuple[slice, slice]]:
        """A random window, `--window` latents a side at most, of clips whose pixels are bytes; and where it lies."""
        sides = []
        for whole in latents.shape[-2:]:
            side = min(self.args.window, whole)
            start = random.randint(0, whole - side)
            sides.append(slice(start, start + side))
        rows, columns = sides
        pixels = video_u8[..., _px(rows), _px(columns)].float() / 127.5 - 1
        return Clip(video=pixels, latents=latents[..., rows, columns]), (rows, columns)

    def step(self, made_latents: Tensor, true: Clip, rate: float) -> tuple[Tensor, Told]:
        """Decoder and opponent learn; returns the gradient of the pixels' loss for `made_latents`, and its parts."""
        made_latents = made_latents.detach().requires_grad_()
        both = torch.cat([made_latents, true.latents]) * self.std + self.mean
        with self._half():
            drawn = self.decode(self.vae, both)
        out = drawn.detach().float().requires_grad_()
        made, again = out.chunk(2)
        near = _error(again, true.video) + _means_error(made, true.video) + EXACT_SHARE * _error(made, true.video)
        wanted = grain(true.video)
        energy = (grain(made) - wanted).abs().mean() + (grain(again) - wanted).abs().mean()
        (gradient,) = torch.autograd.grad(near + self.args.grain * energy, out, retain_graph=True)
        starts = random.sample(range(out.shape[2] - FRAMES_SEEN + 1), min(WINDOWS, out.shape[2] - FRAMES_SEEN + 1))
        seen, real = in_a_row(detail(out), starts), in_a_row(detail(true.video).repeat(2, 1, 1, 1, 1), starts)
        with self._half():
            fooled = F.softplus(self.opponent(real).detach().float() - self.opponent(seen).float()).mean()
        (against,) = torch.autograd.grad(fooled, out)
        weight = self.args.adversary * min(1.0, self.steps / self.args.alone_steps)
        gradient = gradient + weight * gradient.norm() / (against.norm() + 1e-12) * against
        drawn.backward(gradient.to(drawn.dtype))
        self._learn(rate)
        apart = self._oppose(seen.detach(), real)
        self.steps += 1
        assert made_latents.grad is not None
        with torch.no_grad():
            kept = grain(made).square().mean() / wanted.square().mean()
        return made_latents.grad, {"means": _means_error(made, true.video).detach(), "kept": kept,
                                   "again": (again - true.video).square().mean().detach(), "told_apart": apart}

    def _learn(self, rate: float) -> None:
        self.fleet.average_gradients(self.learning)
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.ours.param_groups[0]["lr"] = DECODER_LR * rate
        self.ours.step()
        self.ours.zero_grad(set_to_none=True)
        self.average.update(self.steps)

    def _oppose(self, made: Tensor, true: Tensor) -> Tensor:
        """Each process keeps an opponent of its own."""
        self.theirs.zero_grad(set_to_none=True)
        with self._half():
            of_made, of_true = self.opponent(made).float(), self.opponent(true).float()
            near_made = self.opponent(made + NOISE * torch.randn_like(made)).float()
            near_true = self.opponent(true + NOISE * torch.randn_like(true)).float()
        apart = F.softplus(of_made - of_true).mean()
        slope = (near_made - of_made).square().mean() + (near_true - of_true).square().mean()
        (apart + SLOPE_WEIGHT * slope).backward()
        self.theirs.step()
        return apart.detach()

    def _half(self) -> torch.autocast:
        return torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.device == "cuda")

    def save(self, folder: Path) -> None:
        """Write the VAE with the averaged decoder."""
        copy.deepcopy(self.average.model).half().save_pretrained(folder)


def detail(video: Tensor) -> Tensor:
    """What a frame has beyond its means over 9 x 9 pixels: the discriminator may not change colours."""
    frames = video.transpose(1, 2).flatten(0, 1)
    means = F.avg_pool2d(frames, MEANS_PX, 1, MEANS_PX // 2, count_include_pad=False)
    return video - means.view(len(video), -1, *means.shape[1:]).transpose(1, 2)


def _px(latent: slice) -> slice:
    return slice(LATENT_PX * latent.start, LATENT_PX * latent.stop)


def _error(ours: Tensor, true: Tensor) -> Tensor:
    error = ours - true
    return error.abs().mean() + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())


def _means_error(ours: Tensor, true: Tensor) -> Tensor:
    return F.avg_pool3d(ours - true, (1, MEAN_PX, MEAN_PX)).abs().mean()
