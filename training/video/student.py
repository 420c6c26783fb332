"""What is trained: text encoder and transformer as one module, the losses they learn from, and their files."""

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from training.video.models import FLOW_SHIFT, new_text_encoder, new_transformer
from training.video.reading import Reader, Readings, carried_over
from training.video.texture import Texture, Told

OWN_STEP_COUNTS = (3, 4, 4, 4, 5)
FARTHEST_SHARE = 0.5  # of texture's steps: those clips are decoded in which the camera moves farthest
LAST_SIGMAS = (0.36, 0.66)  # where so few steps, shifted, make their last one: 0.43 to 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Encoded clips of one shape: latents and the pictures' condition [N, 16, t, h, w] bf16, token ids [N, 96].

    `video`: the clips' pixels as bytes [N, 3, T, H, W]; `camera` [N, T, 2, 3] as in `Clips`.
    """

    latents: torch.Tensor
    condition: torch.Tensor
    pictured: torch.Tensor
    tokens: torch.Tensor
    video: torch.Tensor
    camera: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSteps:
    """Latents [B, 16, t, h, w] at `sigma`, where the model's own steps led, and the velocity it predicts there."""

    noisy: torch.Tensor
    sigma: float
    velocity: torch.Tensor


class Student(nn.Module):
    """Text encoder and transformer as one module, and the losses they learn from."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(vocab_size)
        self.transformer = new_transformer()
        self.reader = Reader()
        self.paths = random.Random(0)  # the same choices on every GPU: they wait for one another

    def text(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B, 96, 256], zero where the text has ended, and where it has not [B, 96]."""
        attention = tokens.ne(0)
        states = self.text_encoder(input_ids=tokens, attention_mask=attention.long()).last_hidden_state
        return states * attention.unsqueeze(-1), attention

    def velocity(self, noisy, sigma, condition, pictured, text) -> torch.Tensor:
        """Predict noise - latents at `sigma` [B]; the mask marks latent frame 0 as given where there is a picture."""
        given = pictured.view(-1, 1, 1, 1, 1).to(noisy.dtype)
        mask = torch.zeros_like(noisy[:, :4])
        mask[:, :, 0] = 1
        model_input = torch.cat([noisy, mask * given, condition * given], dim=1)
        return self.transformer(model_input, sigma * 1000, text, return_dict=False)[0]

    def flow_loss(self, pool: Pool, rows: torch.Tensor, *, textured: bool = False) -> torch.Tensor:
        """Flow matching: the velocity at a random point of the straight line from latents to noise.

        `textured`: leaves out the sigmas of a few-step sampler's last step, which `texture_loss` teaches.
        """
        latents, condition = pool.latents[rows].float(), pool.condition[rows].float()
        u = torch.rand(len(rows), device=latents.device)
        bell = torch.sigmoid(torch.randn_like(u))
        u = torch.where(torch.rand_like(u) < 0.5, u, bell)
        sigma = FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u)
        sigma = torch.where(torch.rand_like(u) < 0.06, 1.0, sigma)
        s = sigma.view(-1, 1, 1, 1, 1)
        noise = torch.randn_like(latents)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=latents.is_cuda):
            text, _ = self.text(pool.tokens[rows])
            guess = self.velocity((1 - s) * latents + s * noise, sigma, condition, pool.pictured[rows], text)
        wrong = (guess.float() - (noise - latents)).square().mean((1, 2, 3, 4))
        if textured:
            elsewhere = ((sigma < LAST_SIGMAS[0]) | (sigma > LAST_SIGMAS[1])).float()
            return (wrong * elsewhere).sum() / elsewhere.sum().clamp(min=1)
        return wrong.mean()

    def own_steps(self, pool: Pool, rows: torch.Tensor) -> OwnSteps:
        """Where the model's own few steps lead, and the velocity of its last one; only that call keeps its graph."""
        condition, pictured = pool.condition[rows].float(), pool.pictured[rows]
        ones = torch.ones(len(rows), device=condition.device)
        grid = few_steps(self.paths.choice(OWN_STEP_COUNTS))
        x = torch.randn_like(condition)
        half = torch.autocast(condition.device.type, torch.bfloat16, enabled=condition.is_cuda)
        with torch.no_grad(), half:  # apart from the last call: autocast keeps its copies of weights without a graph
            text, _ = self.text(pool.tokens[rows])
            for now, then in pairwise(grid[:-1]):
                x = x + (then - now) * self.velocity(x, now * ones, condition, pictured, text).float()
        with half:
            text, _ = self.text(pool.tokens[rows])
            guess = self.velocity(x, grid[-2] * ones, condition, pictured, text)
        return OwnSteps(noisy=x, sigma=grid[-2], velocity=guess.float())

    def texture_loss(self, pool: Pool, rows: torch.Tensor, texture: Texture, rate: float) -> tuple[torch.Tensor, Told]:
        """What own steps end in: the mean square where the picture is given, elsewhere less of it and the texture.

        The loss has no meaning but its gradient: the pixels' part is as long as `--texture` times the mean square's in
        the same window. The decoder and its opponent take their own steps here.
        """
        if self.paths.random() < FARTHEST_SHARE:
            rows = farthest_first(pool, rows)
        own = self.own_steps(pool, rows)
        latents = pool.latents[rows].float()
        wrong = (own.velocity - (own.noisy - latents) / own.sigma).detach()
        part = slice(texture.args.texture_rows)
        true, (high, wide) = texture.window(pool.video[rows[part]], latents[part], pool.camera[rows[part]])
        end = (own.noisy - own.sigma * own.velocity.detach())[part, ..., high, wide]
        pixels, told = texture.step(end, true, rate)
        pull = wrong * (2 / wrong.numel())
        here = pull[part, ..., high, wide]
        pixels = -pixels * (texture.args.texture * here.norm() / (pixels.norm() + 1e-12))
        pull[:, :, 1:] *= texture.args.exact
        pull[part, ..., high, wide] += pixels
        return (own.velocity * pull).sum(), told | {"end": wrong.square().mean()}

    def reading_loss(self, readings: Readings, rows: torch.Tensor) -> torch.Tensor:
        """How badly the text encoder's states tell which motions are asked for."""
        tokens = readings.tokens[rows]
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            states, attention = self.text(tokens)
        return self.reader(states.float(), attention, readings.motions[rows], readings.speeds[rows])


def farthest_first(pool: Pool, rows: torch.Tensor) -> torch.Tensor:
    """The rows in the order of how far the camera's centre moves in their clips."""
    centre = pool.camera[rows, :, :, 2].float()
    return rows[(centre[:, -1] - centre[:, 0]).norm(dim=-1).argsort(descending=True)]


def few_steps(steps: int) -> list[float]:
    """Sigmas of a sampler of so many steps, from 1 to 0, shifted as when sampling."""
    even = [1 - step / steps for step in range(steps + 1)]
    return [FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u) for u in even]


def save(student: nn.Module, folder: Path) -> None:
    """Write both modules' weights in bfloat16."""
    for name in ("transformer", "text_encoder"):
        state = {key: value.bfloat16().contiguous() for key, value in getattr(student, name).state_dict().items()
                 if key != "shared.weight"}  # tied to the encoder's own table
        save_file(state, folder / f"{name}.safetensors")


def take_up(student: Student, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Load an earlier run; its token table is carried over to this run's tokenizer."""
    student.transformer.load_state_dict(load_file(folder / "transformer.safetensors"))
    state = load_file(folder / "text_encoder.safetensors")
    old = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    table = "encoder.embed_tokens.weight"
    state[table] = carried_over(old, tokenizer, state[table])
    student.text_encoder.load_state_dict(state, strict=False)  # tied weights stand once
