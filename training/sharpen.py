"""Teaches the VAE's decoder alone to draw sharp frames: encoder and latents stay, so the transformer stays valid.

A decoder that learnt from the mean error draws what it is unsure of too soft. Here two more losses: the local energy of
the Laplacian must be that of the true frame, and a discriminator sees three frames in a row (hinge loss; its weight
follows from the gradients' sizes, as in VQGAN, Esser et al. 2021, but at the pixels). Latents are disturbed a little,
since the transformer's are never exact.

    python -m training.sharpen --vae models/video/vae --out training/runs/vae --total-s 800
"""

import argparse
import json
import math
import random
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.bank import load_bank
from training.models import Z_DIM, latent_scale
from training.scenes import SceneMaker
from training.vae import Average, clip_batch
from training.whole_clip import decode, enable_whole_clip, encode

PATCH_PX = 8
FRAMES_SEEN = 3
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
GREY = (0.299, 0.587, 0.114)
SHAPES = ((9, 256, 0.3), (17, 128, 1.0))  # frames, side, batch as a share


class Discriminator(nn.Module):
    """Three frames in a row, [B, 9, H, W], to a map of scores; each sees 46 x 46 pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = (3 * FRAMES_SEEN, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(sizes[-1], 4 * width, 3, 1, 1)),
                                    nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(4 * width, 1, 3, 1, 1)))

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames)


def grain(video_BCTHW: Tensor) -> Tensor:
    """Local energy of the Laplacian: its root mean square over patches of 8 x 8 pixels of each grey frame."""
    weights = torch.tensor(GREY, device=video_BCTHW.device).view(1, 3, 1, 1, 1)
    grey = (video_BCTHW * weights).sum(1, keepdim=True).transpose(1, 2).flatten(0, 1)
    kernel = torch.tensor(LAPLACIAN, device=grey.device)[None, None]
    return (F.avg_pool2d(F.conv2d(grey, kernel).square(), PATCH_PX) + 1e-5).sqrt()


def in_a_row(video: Tensor, starts: list[int]) -> Tensor:
    """Frames `start` to `start + 2` of each clip, as channels: [B * len(starts), 9, H, W]."""
    return torch.cat([video[:, :, start : start + FRAMES_SEEN].flatten(1, 2) for start in starts])


class Sharpener:
    """The decoder, its opponent, and one step of both."""

    def __init__(self, vae: AutoencoderKLWan, args: argparse.Namespace) -> None:
        self.vae, self.args = vae, args
        vae.requires_grad_(False)
        vae.decoder.requires_grad_(True)
        vae.post_quant_conv.requires_grad_(True)
        self.learning = [p for p in vae.parameters() if p.requires_grad]
        self.opponent = Discriminator().to(args.device)
        fused = args.device == "cuda"
        self.optimizer = torch.optim.AdamW(self.learning, lr=args.lr, betas=(0.5, 0.98), weight_decay=0, fused=fused)
        self.theirs = torch.optim.AdamW(self.opponent.parameters(), lr=3e-4, betas=(0.5, 0.98), weight_decay=0,
                                        fused=fused)
        self.std = latent_scale(vae)[1]
        self.decode = torch.compile(decode, dynamic=False) if args.compile else decode
        self.encode = torch.compile(encode, dynamic=False) if args.compile else encode

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU."""
        return torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.device == "cuda")

    def latents(self, video: Tensor) -> Tensor:
        """Posterior means of a clip, each disturbed by up to `--noise` of the latents' deviation."""
        with torch.no_grad(), self.autocast():
            mean = self.encode(self.vae, video).float()[:, :Z_DIM]
        amount = torch.rand(len(mean), 1, 1, 1, 1, device=mean.device) * self.args.noise
        return mean + amount * self.std * torch.randn_like(mean)

    def step(self, video: Tensor, share: float) -> dict[str, Tensor]:
        """Both learn from a clip [B, 3, T, H, W]; returns the parts of the loss."""
        latents = self.latents(video)
        with self.autocast():
            drawn = self.decode(self.vae, latents)
        out = drawn.detach().float().requires_grad_()
        error = out - video
        near = error.abs().mean() + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        energy = (grain(out) - grain(video)).abs().mean()
        (gradient,) = torch.autograd.grad(near + self.args.grain * energy, out, retain_graph=True)
        starts = random.sample(range(video.shape[2] - FRAMES_SEEN + 1), 3)
        made, true = in_a_row(out, starts), in_a_row(video, starts)
        if share > self.args.alone:
            with self.autocast():
                fooled = -self.opponent(made).float().mean()
            (against,) = torch.autograd.grad(fooled, out)
            weight = self.args.adversary * min(1.0, (share - self.args.alone) / 0.1)
            gradient = gradient + weight * gradient.norm() / (against.norm() + 1e-12) * against
        drawn.backward(gradient.to(drawn.dtype))
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.theirs.zero_grad(set_to_none=True)
        with self.autocast():
            scores = self.opponent(torch.cat([made.detach(), true])).float()
        made_scores, true_scores = scores.chunk(2)
        told_apart = F.relu(1 + made_scores).mean() + F.relu(1 - true_scores).mean()
        told_apart.backward()
        self.theirs.step()
        return {"square": error.square().mean().detach(), "grain": energy.detach(), "told_apart": told_apart.detach()}


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    started = time.monotonic()
    torch.backends.cudnn.benchmark = True
    enable_whole_clip()
    scenes = SceneMaker(load_bank(Path(args.pack), args.device, args.canvases), args.device)
    vae = AutoencoderKLWan.from_pretrained(args.vae, torch_dtype=torch.float32).to(args.device)
    sharpener = Sharpener(vae, args)
    average = Average(vae, 0.998)
    log: list[dict[str, Tensor]] = []
    step = 0
    while (share := (time.monotonic() - started) / args.total_s) < 1:
        rate = args.lr * min(1, (step + 1) / 100) * (0.5 * (1 + math.cos(math.pi * share)) * 0.95 + 0.05)
        sharpener.optimizer.param_groups[0]["lr"] = rate
        frames, side, part = SHAPES[step % 2]
        log.append(sharpener.step(clip_batch(scenes, max(1, round(args.batch * part)), frames, side), share))
        average.update(step)
        step += 1
        if step % args.log == 0:
            mean = {name: torch.stack([row[name] for row in log]).mean().item() for name in log[0]}
            mean["psnr"] = 10 * math.log10(4 / mean.pop("square"))
            told = {"step": step, "s": round(time.monotonic() - started)}
            print(json.dumps(told | {name: round(value, 4) for name, value in mean.items()}), flush=True)
            log = []
        if step % (10 * args.log) == 0:
            average.model.half().save_pretrained(args.out)
            average.model.float()
    average.model.half().save_pretrained(args.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="training/data/pack")
    parser.add_argument("--vae", default="models/video/vae")
    parser.add_argument("--out", default="training/runs/vae")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--canvases", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--total-s", type=float, default=800)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--grain", type=float, default=0.3, help="weight of the Laplacian's local energy")
    parser.add_argument("--adversary", type=float, default=0.5, help="its gradient over the others'")
    parser.add_argument("--alone", type=float, default=0.15, help="share of the time before the discriminator counts")
    parser.add_argument("--noise", type=float, default=0.1, help="in deviations of the latents")
    parser.add_argument("--log", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    train(parser.parse_args())
