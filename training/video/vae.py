"""Trains the causal VAE: single pictures first (cheap, and they limit quality), then clips mixed with pictures.

    python -m training.video.vae --pack training/data/pack --out models/video/vae --still-s 330 --clip-s 240 --compile
"""

import argparse
import copy
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample

from training.video.bank import Bank, load_bank
from training.video.models import Z_DIM, new_vae
from training.video.scenes import CAMERA, MOTIONS, SPEEDS, SceneMaker
from training.video.whole_clip import decode, enable_whole_clip, encode


def still_batch(bank: Bank, n: int, size: int, device: str) -> torch.Tensor:
    """[n, 3, 1, size, size] in [-1, 1]: random windows, turned, flipped and recoloured; a third carry a cut-out."""
    picture = bank.canvases[torch.randint(len(bank.canvases), (n,), device=device)].float() / 255
    picture = picture.clamp(1e-4, 1).pow(torch.exp((torch.rand(n, 1, 1, 1, device=device) - 0.5) * 0.8))
    picture = (picture * (1 + (torch.rand(n, 3, 1, 1, device=device) - 0.5) * 0.3)).clamp(0, 1)
    side = picture.shape[-1]
    scale = torch.exp(torch.rand(n, device=device) * math.log(2.0) - 0.5 * math.log(2.0)) * size / side
    quarter = torch.randint(4, (n,), device=device) * (math.pi / 2)
    turn = quarter + torch.randn(n, device=device) * 0.1 * (torch.rand(n, device=device) < 0.3)
    flip = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    room = (1 - scale).clamp(min=0)
    centre = (torch.rand(n, 2, device=device) * 2 - 1) * room[:, None]
    theta = torch.stack([
        torch.stack([turn.cos() * scale * flip, turn.sin() * scale, centre[:, 0]], -1),
        torch.stack([-turn.sin() * scale * flip, turn.cos() * scale, centre[:, 1]], -1),
    ], dim=1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    out = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
    k = max(1, n // 3)
    rgba = bank.cutouts[torch.randint(len(bank.cutouts), (k,), device=device)].float() / 255
    zoom = 0.8 + torch.rand(k, device=device) * 1.6
    shift = (torch.rand(k, 2, device=device) * 2 - 1) * 0.8
    zero = torch.zeros_like(zoom)
    theta = torch.stack([torch.stack([zoom, zero, shift[:, 0]], -1), torch.stack([zero, zoom, shift[:, 1]], -1)], dim=1)
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
    rgba = F.grid_sample(rgba, F.affine_grid(theta, [k, 4, size, size], align_corners=False), align_corners=False)
    out = torch.cat([out[:k] * (1 - rgba[:, 3:]) + rgba[:, :3], out[k:]])
    return (out * 2 - 1).unsqueeze(2)


def clip_batch(scenes: SceneMaker, n: int, frames: int, size: int) -> torch.Tensor:
    """[n, 3, frames, size, size] in [-1, 1]; camera motion half of the time."""
    motions = [(random.choice(CAMERA if random.random() < 0.5 else MOTIONS),) for _ in range(n)]
    return scenes.make(motions, random.choices(SPEEDS, k=n), frames, size, size).video


@torch.no_grad()
def start_as_picture_codec(vae) -> None:
    """Before training: every frame on its own. Past taps are zero, temporal resampling takes or repeats the last frame.

    Single pictures train only the last temporal tap, so without this the first clips would meet random past taps.
    """
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] == 3:
            module.weight[:, :, :-1] = 0
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            eye = torch.eye(module.dim, device=module.time_conv.weight.device)
            repeats = module.time_conv.out_channels // module.dim
            module.time_conv.weight[:, :, -1, 0, 0] = eye.repeat(repeats, 1)
            module.time_conv.bias.zero_()


def loss_of(vae, video: torch.Tensor, kl_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction (L1, plus L1 of spatial differences for edges) + KL; also the mean squared error."""
    moments = encode(vae, video)
    mean, log_var = moments.float().chunk(2, dim=1)
    log_var = log_var.clamp(-20, 10)
    latents = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
    out = decode(vae, latents).float()
    error = out - video
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
    square = error.square().mean()
    return error.abs().mean() + 0.5 * edges + 2.0 * square + kl_weight * kl, square.detach()


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, vae: torch.nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(vae).eval().requires_grad_(False)
        self.decay = decay
        self.ours, self.theirs = list(self.model.parameters()), list(vae.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(self.ours, self.theirs, 1 - min(self.decay, (step + 1) / (step + 10)))


@torch.no_grad()
def latent_statistics(vae, scenes: SceneMaker, device: str) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents over clips, for the VAE's config."""
    latents = []
    for _ in range(8):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            moments = encode(vae, clip_batch(scenes, 16 if device == "cuda" else 1, 17, 128))
        latents.append(moments.float().chunk(2, dim=1)[0].transpose(0, 1).reshape(Z_DIM, -1))
    every = torch.cat(latents, dim=1)
    return every.mean(1).tolist(), every.std(1).tolist()


def train(args: argparse.Namespace) -> None:
    device = args.device
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    torch.backends.cudnn.benchmark = True
    enable_whole_clip()
    bank = load_bank(Path(args.pack), device, args.canvases)
    print("bank", bank.canvases.shape, bank.cutouts.shape, flush=True)
    scenes = SceneMaker(bank, device)
    vae = new_vae().to(device)
    start_as_picture_codec(vae)
    if args.resume:
        vae = AutoencoderKLWan.from_pretrained(args.resume, torch_dtype=torch.float32).to(device)
    average = Average(vae, 0.999)
    step_loss = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    phases = [("still", args.still_s, args.still_lr), ("clip", args.clip_s, args.clip_lr)]
    for phase, seconds, peak in phases:
        if seconds <= 0:
            continue
        optimizer = torch.optim.AdamW(vae.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4,
                                      fused=device == "cuda")
        start, step, errors = time.monotonic(), 0, []
        while (elapsed := time.monotonic() - start) < seconds:
            part = elapsed / seconds
            rate = peak * min(1, (step + 1) / 200) * (0.5 * (1 + math.cos(math.pi * part)) * 0.98 + 0.02)
            for group in optimizer.param_groups:
                group["lr"] = rate
            if step % 4 == 3:  # whole-frame attention in the middle must also know larger pictures
                video = still_batch(bank, args.still_batch // 4, 2 * args.size, device)
            elif phase == "still":
                video = still_batch(bank, args.still_batch, args.size, device)
            else:
                video = clip_batch(scenes, args.clip_batch, args.frames, args.size)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss, square = step_loss(vae, video, args.kl)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(step)
            errors.append(square)
            step += 1
            if step % args.log == 0:
                psnr = 10 * math.log10(4 / torch.stack(errors[-args.log:]).mean().item())
                row = {"phase": phase, "step": step, "s": round(elapsed), "psnr": round(psnr, 2)}
                print(json.dumps(row), flush=True)
                errors = []
        save(average.model, scenes, out)


def save(vae: AutoencoderKLWan, scenes: SceneMaker, folder: Path) -> None:
    """Write weights (float16) and config, with the latents' statistics, as diffusers does."""
    mean, std = latent_statistics(vae, scenes, scenes.device)
    half = copy.deepcopy(vae).half()
    half.register_to_config(latents_mean=mean, latents_std=std)
    half.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="training/data/pack")
    parser.add_argument("--out", default="models/video/vae")
    parser.add_argument("--resume", help="folder of an earlier VAE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--canvases", type=int, default=6000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--still-batch", type=int, default=192)
    parser.add_argument("--clip-batch", type=int, default=24)
    parser.add_argument("--still-s", type=float, default=330)
    parser.add_argument("--clip-s", type=float, default=240)
    parser.add_argument("--still-lr", type=float, default=1.5e-3)
    parser.add_argument("--clip-lr", type=float, default=6e-4)
    parser.add_argument("--kl", type=float, default=1e-5)
    parser.add_argument("--log", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    train(parser.parse_args())
