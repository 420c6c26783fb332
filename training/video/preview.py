"""Draws a run before it is exported: one row a motion, held-out pictures, few Euler steps; prints first-frame PSNR.

    python -m training.video.preview --dit training/runs/dit --pictures DIR --out sheet.png
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import AutoTokenizer

from training.video.dit import Student
from training.video.models import FLOW_SHIFT, MAX_TEXT_TOKENS, Z_DIM, latent_scale, load_vae
from training.video.whole_clip import decode, enable_whole_clip, encode

PROMPTS = ["The camera zooms in.", "The camera zooms out.", "Pan left.", "Pan right.", "Tilt up.", "Tilt down.",
           "The picture rotates clockwise.", "The picture rotates counterclockwise.", "Hold still.", "镜头缓缓推近",
           "The water ripples.", "It gets dark."]


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    device = args.device
    enable_whole_clip()
    vae = load_vae(args.vae, device)
    mean, std = latent_scale(vae)
    width, height = args.width, args.height
    files = sorted(Path(args.pictures).iterdir())
    pictures = [np.asarray(ImageOps.fit(Image.open(f).convert("RGB"), (width, height), Image.Resampling.LANCZOS))
                for f in files]
    still = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).unsqueeze(2).float() / 127.5 - 1
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        first = encode(vae, still).float()[:, :Z_DIM]
        copy = decode(vae, first).float().clamp(-1, 1)
    for file, error in zip(files, (copy - still).square().mean((1, 2, 3, 4)).tolist(), strict=True):
        print(f"VAE {file.stem}: {10 * math.log10(4 / error):.2f} dB")
    if not args.dit:
        return
    tokenizer = AutoTokenizer.from_pretrained(Path(args.dit) / "tokenizer")
    student = Student(len(tokenizer)).to(device).eval()
    for name in ("transformer", "text_encoder"):
        getattr(student, name).load_state_dict(load_file(Path(args.dit) / f"{name}.safetensors"), strict=False)
    t = (args.frames - 1) // 4 + 1
    sigmas = torch.linspace(1, 1 / args.steps, args.steps)
    sigmas = torch.cat([FLOW_SHIFT * sigmas / (1 + (FLOW_SHIFT - 1) * sigmas), torch.zeros(1)]).to(device)
    rows = []
    for index, prompt in enumerate(PROMPTS):
        picked = [(index + k) % len(files) for k in range(args.per_prompt)]
        condition = torch.zeros(len(picked), Z_DIM, t, height // 4, width // 4, device=device)
        condition[:, :, :1] = ((first - mean) / std)[picked]
        tokens = tokenizer([prompt] * len(picked), padding="max_length", max_length=MAX_TEXT_TOKENS, truncation=True,
                           return_tensors="pt").input_ids.to(device)
        x = torch.randn(condition.shape, generator=torch.Generator().manual_seed(index)).to(device)
        pictured = torch.ones(len(picked), dtype=torch.bool, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for now, then in pairwise(sigmas):
                v = student.velocity(x, now.expand(len(picked)), condition, pictured, tokens)
                x = x + (then - now) * v.float()
            video = decode(vae, x * std + mean).float().clamp(-1, 1)
        error = (video[:, :, :1] - still[picked]).square().mean((1, 2, 3, 4))
        print(prompt, [f"{10 * math.log10(4 / e):.1f}" for e in error.tolist()])
        shown = ((video[:, :, ::8] + 1) * 127.5).byte().permute(0, 3, 2, 4, 1)
        rows.append(torch.cat([clip.reshape(height, -1, 3) for clip in shown], dim=1).cpu())
    Image.fromarray(torch.cat(rows).numpy()).save(args.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", default="models/video/vae")
    parser.add_argument("--dit")
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--out", default="preview.png")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--per-prompt", type=int, default=2)
    main(parser.parse_args())
