"""Texture of what moves: the transformer's last step and the VAE's decoder learn together against a discriminator.

The mean square leaves out whatever fine texture it cannot place to the pixel, so a few-step clip softens as soon as it
moves. Here the model's own few steps are taken (backward simulation, DMD2, Yin et al. 2024); what they end in is
decoded, and the pixels learn four things: what 4 x 4 means say, where the true clip has how much grain, that nothing
changes but with the camera, and what a discriminator of three frames in a row takes for true. The decoder also decodes
true latents, whose clip it must give back to the pixel; the encoder stays.

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
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from training.evaluation.pixels import FRAMES_SEEN, carried_error, detail, error_of, grain, in_a_row, means_error
from training.video.fleet import Fleet
from training.video.models import latent_scale
from training.video.vae import Average
from training.video.whole_clip import decode

LATENT_PX = 4
SAME = 0.1  # of pixels in [-1, 1]: below it a true clip shows the same thing in both frames
OPPONENT_STEPS = 2  # to one of ours
WINDOWS = 8  # of three frames, a clip
NOISE = 0.02  # of pixels in [-1, 1]
SLOPE_WEIGHT = 30.0  # of the squared change that such noise makes to a score
DECODER_LR = 1e-4
OPPONENT_LR = 4e-4
EXACT_SHARE = 0.1  # of the error pixel for pixel, in the loss of generated frames
Told = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The same window of some clips: pixels [B, 3, T, H, W] in [-1, 1] and the true latents [B, 16, t, h, w].

    `camera` [B, T, 2, 3] maps a pixel's place in the window, from its centre, to the world point it shows.
    """

    video: Tensor
    latents: Tensor
    camera: Tensor


def new_opponent(width: int = 128) -> nn.Sequential:
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

    def window(self, video_u8: Tensor, latents: Tensor, camera: Tensor) -> tuple[Clip, tuple[slice, slice]]:
        """A random window, `--window` latents a side at most, of clips whose pixels are bytes; and where it lies."""
        sides = []
        for whole in latents.shape[-2:]:
            side = min(self.args.window, whole)
            start = random.randint(0, whole - side)
            sides.append(slice(start, start + side))
        rows, columns = sides
        middle = torch.tensor([_middle(columns, latents.shape[-1]), _middle(rows, latents.shape[-2])]).to(camera)
        camera = torch.cat([camera[..., :2], camera[..., 2:] + (camera[..., :2] @ middle)[..., None]], dim=-1)
        pixels = video_u8[..., _px(rows), _px(columns)].float() / 127.5 - 1
        return Clip(video=pixels, latents=latents[..., rows, columns], camera=camera), (rows, columns)

    def step(self, made_latents: Tensor, true: Clip, rate: float) -> tuple[Tensor, Told]:
        """Decoder and opponent learn; returns the gradient of the pixels' loss for `made_latents`, and its parts."""
        made_latents = made_latents.detach().requires_grad_()
        both = torch.cat([made_latents, true.latents]) * self.std + self.mean
        with self._half():
            drawn = self.decode(self.vae, both)
        out = drawn.detach().float().requires_grad_()
        made, again = out.chunk(2)
        near = error_of(again, true.video) + means_error(made, true.video) + EXACT_SHARE * error_of(made, true.video)
        unsteady = self._unsteady(made, true) + self._unsteady(again, true)
        wanted = grain(true.video)
        energy = (grain(made) - wanted).abs().mean() + (grain(again) - wanted).abs().mean()
        (gradient,) = torch.autograd.grad(
            near + self.args.grain * energy + self.args.steady * unsteady, out, retain_graph=True)
        starts = self._starts(out)
        seen, real = in_a_row(detail(out), starts), in_a_row(detail(true.video).repeat(2, 1, 1, 1, 1), starts)
        with self._half():
            fooled = F.softplus(self.opponent(real).detach().float() - self.opponent(seen).float()).mean()
        (against,) = torch.autograd.grad(fooled, out)
        weight = self.args.adversary * min(1.0, self.steps / self.args.alone_steps)
        gradient = gradient + weight * gradient.norm() / (against.norm() + 1e-12) * against
        drawn.backward(gradient.to(drawn.dtype))
        self._learn(rate)
        apart = [self._oppose(out.detach(), true.video) for _ in range(OPPONENT_STEPS)][-1]
        self.steps += 1
        assert made_latents.grad is not None
        with torch.no_grad():
            kept = grain(made).square().mean() / wanted.square().mean()
        return made_latents.grad, {"means": means_error(made, true.video).detach(), "kept": kept,
                                   "again": (again - true.video).square().mean().detach(), "told_apart": apart,
                                   "unsteady": unsteady.detach()}

    def _unsteady(self, video: Tensor, true: Clip) -> Tensor:
        """How much more a frame differs from the one before it, carried along by the camera, than in the true clip."""
        starts = random.sample(range(video.shape[2] - 1), min(WINDOWS, video.shape[2] - 1))
        ours, theirs = (carried_error(clip, true.camera, starts) for clip in (video, true.video))
        here = torch.exp(-((theirs / SAME).square()))  # not where other motion, or what was hidden, is seen
        return (F.relu(ours - theirs) * here).mean()

    def _learn(self, rate: float) -> None:
        self.fleet.average_gradients(self.learning)
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.ours.param_groups[0]["lr"] = DECODER_LR * rate
        self.ours.step()
        self.ours.zero_grad(set_to_none=True)
        self.average.update(self.steps)

    def _oppose(self, made: Tensor, true: Tensor) -> Tensor:
        """Each process keeps an opponent of its own."""
        starts = self._starts(made)
        made, true = in_a_row(detail(made), starts), in_a_row(detail(true).repeat(2, 1, 1, 1, 1), starts)
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

    def _starts(self, video: Tensor) -> list[int]:
        every = range(video.shape[2] - FRAMES_SEEN + 1)
        return random.sample(every, min(WINDOWS, len(every)))

    def _half(self) -> torch.autocast:
        return torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.device == "cuda")

    def agree(self) -> None:
        """Copy rank 0's decoder to all."""
        self.fleet.agree(self.learning)

    def save(self, folder: Path) -> None:
        """Write the VAE with the averaged decoder."""
        copy.deepcopy(self.average.model).half().save_pretrained(folder)


def _middle(part: slice, whole: int) -> float:
    """Where a window's centre lies, in pixels from the frame's."""
    return LATENT_PX * (part.start + part.stop - whole) / 2


def _px(latent: slice) -> slice:
    return slice(LATENT_PX * latent.start, LATENT_PX * latent.stop)
