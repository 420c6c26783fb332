"""The embedded decoder: a small transformer that reads image tokens and writes words. Torch only."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vl_service.embedded.vision.branch import DRAWN_CHANNELS
from vl_service.embedded.vision.features import CHANNELS, GRID, LEVELS, SLOTS

CLASSES = 1000
CLASS_TOKENS, NAME_TOKENS = 16, 12
PREFIX = GRID * GRID + 4 + CLASS_TOKENS + NAME_TOKENS + SLOTS
RECORD_ROOM = 40  # positions of the record; texts begin behind it
TEXT_ROOM = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes of the network."""

    vocabulary: int
    names: int
    """Drawn things that the branch tells apart, none at all among them."""
    width: int = 384
    layers: int = 6
    heads: int = 6

    def as_dict(self) -> dict[str, int]:
        """For a JSON file."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTokens:
    """What the decoder reads of a batch of pictures."""

    grid_BPC: Tensor
    crop_BC: Tensor
    thumbnails_B3HW: Tensor
    """uint8 `[B, 3, 144, 144]`."""
    classes_BN: Tensor
    levels_BN: Tensor
    slots_BS: Tensor
    drawn_B2C: Tensor
    """The branch's features of both looks."""
    names_BM: Tensor
    name_levels_BM: Tensor
    where_BP: Tensor


Cache = list[tuple[Tensor, Tensor]]
"""Keys and values `[B, heads, length, head width]`, a pair a layer."""


class Block(nn.Module):
    """Attention and a gated feed-forward part, each with its norm before it (RMSNorm, SwiGLU)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * 8 // 3
        self.heads = config.heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`mask` is True where a query may look; returns the new states and all keys and values so far."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        gate, value = self.up(self.norm_2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * value), (k, v)


class Decoder(nn.Module):
    """Image tokens (which see one another) and then words (which see what came before)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.from_grid, self.from_pooled = nn.Linear(CHANNELS, width), nn.Linear(CHANNELS, width)
        self.from_drawn, self.where = nn.Linear(DRAWN_CHANNELS, width), nn.Linear(1, width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(48, 96, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(96, width, 3, 2, 1),
        )
        self.classes, self.class_levels = nn.Embedding(CLASSES, width), nn.Embedding(LEVELS, width)
        self.names, self.name_levels = nn.Embedding(config.names, width), nn.Embedding(LEVELS, width)
        self.facts = nn.Embedding(SLOTS * LEVELS, width)
        self.prefix_place = nn.Parameter(torch.zeros(PREFIX, width))
        self.words = nn.Embedding(config.vocabulary, width)
        self.word_place = nn.Embedding(RECORD_ROOM + TEXT_ROOM, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.prefix_place, std=0.02)

    def prefix(self, image: ImageTokens) -> Tensor:
        """Image tokens `[B, PREFIX, width]`."""
        dtype = self.from_grid.weight.dtype
        grid = image.grid_BPC.to(dtype)
        picture = (image.thumbnails_B3HW.to(dtype) - 127) / 64
        cells = self.from_grid(grid) + self.stem(picture).flatten(2).transpose(1, 2)
        cells = cells + self.where(image.where_BP.to(dtype)[:, :, None])
        drawn = self.from_drawn(image.drawn_B2C.to(dtype))
        pooled = self.from_pooled(torch.stack([grid.mean(1), image.crop_BC.to(dtype)], dim=1))
        classes = self.classes(image.classes_BN) + self.class_levels(image.levels_BN)
        names = self.names(image.names_BM) + self.name_levels(image.name_levels_BM)
        offsets = torch.arange(SLOTS, device=grid.device) * LEVELS
        facts = self.facts(image.slots_BS + offsets)
        return torch.cat([cells, pooled, drawn, classes, names, facts], dim=1) + self.prefix_place

    def hidden(self, x: Tensor, mask: Tensor | None, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Run the blocks over states `[B, length, width]`, after those whose keys and values are in `cache`."""
        grown: Cache = []
        for number, block in enumerate(self.blocks):
            x, kept = block(x, mask, None if cache is None else cache[number])
            grown.append(kept)
        return self.norm(x), grown

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token; input and output words share their vectors."""
        return F.linear(hidden, self.words.weight)

    def embed(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Word vectors at their places."""
        return self.words(tokens) + self.word_place(places)
