"""The optimisation: one step over random rows, and as many steps as the time allows."""

import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.video.muon import Muon
from training.vl.gather import Gallery
from training.vl.implants import Implants, image_tokens
from training.vl.subjects import Rows
from vl_service.embedded.model.decoder import PREFIX, Decoder, ImageTokens

MISSING_CELLS = 0.05
LOUDNESS = 0.08


def mask_of(segments_BT: Tensor) -> Tensor:
    """`[B, 1, L, L]`: image tokens see one another; words see them, the record and their own text so far."""
    batch, length = segments_BT.shape
    total = PREFIX + length
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_BT.device).tril()
    same = segments_BT[:, :, None] == segments_BT[:, None, :]
    words = causal & (same | (segments_BT[:, None, :] == 0))
    mask = torch.zeros(batch, total, total, dtype=torch.bool, device=segments_BT.device)
    mask[:, :, :PREFIX] = True
    mask[:, PREFIX:, PREFIX:] = words
    return mask[:, None]


class Learner:
    """One optimisation step over random rows."""

    def __init__(
        self, model: Decoder, gallery: Gallery, implants: Implants, weight_KC: Tensor, rows: Rows, device: str
    ) -> None:
        self.model, self.gallery, self.implants, self.weight_KC, self.rows = model, gallery, implants, weight_KC, rows
        self.device = device
        inner = [value for value in model.blocks.parameters() if value.ndim == 2]
        held = {id(value) for value in inner}
        self.muon = Muon(inner)
        self.adam = torch.optim.AdamW(
            [value for value in model.parameters() if id(value) not in held],
            lr=1e-3,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            fused=device == "cuda",
        )
        self.loss_of = torch.compile(self._loss, dynamic=False) if device == "cuda" else self._loss

    def _loss(self, prefix: Tensor, tokens: Tensor, places: Tensor, segments: Tensor, weights: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            states = torch.cat([prefix, self.model.embed(tokens, places)], dim=1)
            hidden, _ = self.model.hidden(states, mask_of(segments))
            # the state before a token predicts it
            logits = self.model.logits(hidden[:, PREFIX - 1 : -1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
        scale = weights.flatten().float()
        return (losses * scale).sum() / scale.sum()

    def _disturbed(self, image: ImageTokens) -> ImageTokens:
        """Features a little louder or softer, and cells of the grid missing: backgrounds are few, pictures many."""
        grid = image.grid_BPC
        kept = (torch.rand(*grid.shape[:2], 1, device=grid.device) > MISSING_CELLS).to(grid.dtype)
        loud = 1 + LOUDNESS * torch.randn(len(grid), 1, 1, device=grid.device)
        drawn = image.drawn_B2C * (1 + LOUDNESS * torch.randn(len(grid), 1, 1, device=grid.device))
        return replace(image, grid_BPC=grid * kept * loud, crop_BC=image.crop_BC * loud[:, 0], drawn_B2C=drawn)

    def step(self, chosen: Tensor, rate: float) -> Tensor:
        """Learn from these rows at this rate; returns the loss."""
        image = image_tokens(
            self.gallery, self.implants, self.weight_KC, self.rows.pictures[chosen], self.rows.additions[chosen]
        )
        image = self._disturbed(image)
        rows = self.rows
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            prefix = self.model.prefix(image).float()
        loss = self.loss_of(
            prefix, rows.tokens[chosen].long(), rows.places[chosen].long(), rows.segments[chosen], rows.weights[chosen]
        )
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        self.muon.step(rate)
        return loss.detach()


def fit(learner: Learner, seconds: float, batch: int, peak: float) -> list[dict[str, float]]:
    """Train for so long; the rate warms up over 2 % of the time and falls along a cosine."""
    count = len(learner.rows.tokens)
    started, steps, log = time.monotonic(), 0, []
    order, at = torch.randperm(count, device=learner.device), 0
    learner.model.train()
    while (share := (time.monotonic() - started) / seconds) < 1:
        if at + batch > count:
            order, at = torch.randperm(count, device=learner.device), 0
        rate = peak * min(1.0, (steps + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * share))))
        loss = learner.step(order[at : at + batch], rate)
        at, steps = at + batch, steps + 1
        if steps % 100 == 0 or steps < 3:
            log.append({"step": steps, "seconds": round(time.monotonic() - started, 1), "loss": round(float(loss), 4)})
            print(log[-1], f"{steps * batch / count:.2f} epochs", flush=True)
    return log
