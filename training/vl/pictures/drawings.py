"""Cut-outs composed over scenes on the device, thousands a second: what the branch learns from.

One thing a picture, one to four of it, turned, squeezed, tinted, lit and blurred; some pictures show none. Some things
are put together of two: what is said of them is said as surely as much of each is there (CutMix, Yun et al. 2019). And
some are things that no name fits, of which the kind is known: there every name of that kind is as right as the other
(outlier exposure, Hendrycks et al. 2019). They are rougher than those of `compose.py`, which the decoder learns from.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from training.vl.pictures.compose import Stock
from training.vl.pictures.concepts import Concept
from vl_service.embedded.vision.branch import FINE_GRID
from vl_service.embedded.vision.features import TOWER_SIDE

SIDE = 160  # pixels that a cut-out is kept at
NONE_SHARE = 0.12
MOST = 4
LARGEST = (1.05, 0.55, 0.46, 0.42)  # share of the frame's side that a thing takes, of one to four
LAYOUTS = 16  # of so many the one whose things lie the farthest apart is taken
OUTLINED, EMPTY, SILHOUETTE = 0.2, 0.2, 0.03  # shares: with black outlines, of those nothing but them, a single colour
SPREAD = 0.7  # cells of the fine grid that the middle of a thing is blurred by
WIDEST = 1.8  # width over height of a picture, as in compose.py
LIGHT = (0.3, 1.6)  # over the whole
LUMA = (0.299, 0.587, 0.114)
KEPT_BACK = 10  # one in so many drawings of a thing of several is not for the branch
OTHERS = 0.12  # share of the things drawn that no name fits
RECOLOURED = 0.3  # share whose hue is turned
CLIPART = 2.0  # times as often as an emoji of the same thing: emoji are several to a design, clip-art is new each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Pictures [B, 3, 260, 260] as the tower reads them, what they show, where, and the middles of how many things."""

    pixels: Tensor
    labels: Tensor
    """Names, none at all, or behind that the kinds of what has no name; of what is put together the first thing's."""
    targets_BN: Tensor
    """How right each name is, and none at all behind them; sums to one."""
    covered_BHW: Tensor
    """`[B, 17, 17]`: the share of each cell that shows something drawn."""
    middles_BHW: Tensor
    """`[B, 17, 17]`: adds up to the number of things."""


def kept_back(file: str) -> bool:
    """Whether the decoder alone learns from this drawing: it has to see how the branch errs on what it has not seen."""
    return hashlib.sha256(f"branch {file}".encode()).digest()[0] % KEPT_BACK == 0


def own_files(concept: Concept) -> list[str]:
    """The drawings that the branch learns from: most of them, all where there are few."""
    own = [file for file in concept.files if not kept_back(file)]
    return own if len(concept.files) > 2 and own else list(concept.files)


def named_concepts(concepts: Sequence[Concept]) -> list[int]:
    """Those that the branch tells apart, by their index: all that training shows."""
    return [at for at, concept in enumerate(concepts) if concept.role != "held"]


class Drawings:
    """Cut-outs and scenes on the device."""

    def __init__(
        self, stock: Stock, files: Sequence[Sequence[str]], scenes_N3HW: Tensor, *,
        others: Mapping[str, Sequence[str]] | None = None, kinds: Sequence[str] = (), joined: float = 0.0,
        recoloured: float = RECOLOURED,
    ) -> None:
        """`files` are lists of cut-outs, one a name; of empty ones nothing is drawn. `others` are those that no name
        fits, by their kind; `kinds` are the names'. A share `joined` of the things is put together of two.
        """
        device = scenes_N3HW.device
        others = others or {}
        listed = [*files, [], *others.values()]
        names = [name for some in listed for name in some]
        self.cutouts = torch.stack([_padded(stock.cutouts[name]) for name in names]).to(device)
        self.labels = torch.tensor([label for label, some in enumerate(listed) for _ in some], device=device)
        self.shares = _shares(listed, len(files)).to(device)
        self.none, self.joined, self.recoloured = len(files), joined, recoloured
        self.targets_LN = torch.cat([torch.eye(len(files) + 1), *(_of_kind(kind, kinds) for kind in others)]).to(device)
        self.scenes = scenes_N3HW

    def shown(self) -> Tensor:
        """How often each name is shown, `[N + 1]`; none at all as often as the mean of the others' logarithms."""
        names = torch.zeros(self.none, device=self.shares.device)
        own = self.labels < self.none
        names.index_add_(0, self.labels[own], self.shares[own])
        names = names.clamp(min=1e-9) / names.sum()
        return torch.cat([names, names.log().mean().exp()[None]])

    def batch(self, size: int) -> Composed:
        """So many pictures."""
        device = self.scenes.device
        which = torch.multinomial(self.shares, size, replacement=True)
        labels, pieces = self.labels[which], self.cutouts[which].float() / 255
        order = torch.randperm(size, device=device)
        pieces, second = _joined(pieces, pieces[order], torch.rand(size, device=device) < self.joined)
        canvas = self._scenes(size)
        pieces = outlined(_tinted(pieces, self.recoloured))
        number = torch.multinomial(torch.tensor([0.55, 0.16, 0.15, 0.14], device=device), size, replacement=True) + 1
        number[torch.rand(size, device=device) < NONE_SHARE] = 0
        places = _places(number)
        squeeze = _squeezed(size, device)
        lean = (torch.rand(size, device=device) - 0.5) * math.radians(50)
        alphas = canvas.new_zeros(MOST, size, 1, TOWER_SIDE, TOWER_SIDE)
        for turn in range(MOST):
            some = (number > turn).nonzero()[:, 0]
            if not len(some):
                break
            piece = _placed(pieces[some], places[some, turn], squeeze[some], lean[some])
            alpha = piece[:, 3:]
            canvas[some] = canvas[some] * (1 - alpha) + piece[:, :3] * alpha
            alphas[:turn, some] *= 1 - alpha
            alphas[turn, some] = alpha
        pixels = _lit(canvas)
        covered = alphas.amax(0)
        area = alphas.sum((2, 3, 4)).T
        middles = _middles(places[..., :2]) * (area > area.amax(1, keepdim=True) / 3)[..., None, None]
        middles *= (area > 0)[..., None, None]
        targets = (1 - second) * self.targets_LN[labels] + second * self.targets_LN[labels[order]]
        return Composed(
            pixels=(pixels * 255 - 127) / 128, labels=torch.where(number > 0, labels, self.none),
            targets_BN=torch.where(number[:, None] > 0, targets, self.targets_LN[self.none]),
            covered_BHW=F.adaptive_avg_pool2d((covered > 0.5).float(), FINE_GRID)[:, 0], middles_BHW=middles.sum(1),
        )

    def _scenes(self, size: int) -> Tensor:
        device = self.scenes.device
        scenes = self.scenes[torch.randint(len(self.scenes), (size,), device=device)].float() / 255
        side = 0.4 + 0.6 * torch.rand(size, device=device)
        x, y = ((torch.rand(2, size, device=device) * 2 - 1) * (1 - side)).unbind()
        flip = (torch.rand(size, device=device) < 0.5).float() * 2 - 1
        zero = torch.zeros_like(x)
        matrix = torch.stack([torch.stack([side * flip, zero, x], 1), torch.stack([zero, side, y], 1)], 1)
        return _sampled(scenes, matrix)


def _shares(listed: Sequence[Sequence[str]], names: int) -> Tensor:
    """How often each drawing of these lists is shown; those behind the names share `OTHERS`."""
    found: list[Tensor] = []
    for some in listed:
        each = torch.tensor([CLIPART if "clipart" in name else 1.0 for name in some])
        found.append(each / each.sum() * len(some) ** 0.5)  # people look more different than kiwis
    known, others = (torch.cat([torch.zeros(0), *part]) for part in (found[:names], found[names:]))
    if len(others):
        known, others = known / known.sum() * (1 - OTHERS), others / others.sum() * OTHERS
    return torch.cat([known, others])


def _of_kind(kind: str, kinds: Sequence[str]) -> Tensor:
    """`[1, N + 1]`: every name of the kind alike, or every name if none is of it."""
    fitting = torch.tensor([[float(one == kind) for one in kinds] + [0.0]])
    if not fitting.any():
        fitting[:, :-1] = 1.0
    return fitting / fitting.sum()


def _joined(pieces: Tensor, others: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen ones cut along a line near their middle, beyond it the other; and that one's share, `[B, 1]`."""
    size, device = len(pieces), pieces.device
    angle = torch.rand(size, 1, 1, 1, device=device) * 2 * math.pi
    beyond = (torch.rand(size, 1, 1, 1, device=device) - 0.5) * 0.8
    cells = torch.linspace(-1, 1, SIDE, device=device)
    far = cells.view(1, 1, 1, -1) * angle.cos() + cells.view(1, 1, -1, 1) * angle.sin() > beyond
    far &= chosen.view(-1, 1, 1, 1)
    here, there = ((alpha * kept).sum((1, 2, 3)) for alpha, kept in ((pieces[:, 3:], ~far), (others[:, 3:], far)))
    return torch.where(far, others, pieces), (there / (here + there).clamp(min=1e-6))[:, None]


def _padded(cutout: Image.Image) -> Tensor:
    """uint8 `[4, 160, 160]`, the shape kept."""
    square = ImageOps.contain(cutout, (SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(square, ((SIDE - square.width) // 2, (SIDE - square.height) // 2))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def _sampled(images: Tensor, matrix_B23: Tensor) -> Tensor:
    places = F.affine_grid(matrix_B23, [len(images), 1, TOWER_SIDE, TOWER_SIDE], align_corners=False)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)


def _places(number: Tensor) -> Tensor:
    """Middle x and y, -1 to 1, and half the side of up to four things `[B, 4, 3]`, mostly apart from one another."""
    size, device = len(number), number.device
    largest = torch.tensor(LARGEST, device=device)[(number - 1).clamp(min=0)]
    scale = 0.2 * (largest / 0.2) ** torch.rand(size, device=device)
    own = scale[:, None] * (0.85 + 0.3 * torch.rand(size, MOST, device=device))
    room = (1 - own).clamp(min=0.1)
    middles = (torch.rand(LAYOUTS, size, MOST, 2, device=device) * 2 - 1) * room[..., None]
    gaps = (middles[:, :, :, None] - middles[:, :, None]).abs().amax(-1) / (own[:, :, None] + own[:, None])
    turns = torch.arange(MOST, device=device)
    pairs = (turns[:, None] < turns) & (turns < number[:, None, None])
    best = gaps.masked_fill(~pairs, math.inf).amin((2, 3)).argmax(0)
    best = torch.where(torch.rand(size, device=device) < 0.1, 0, best)
    return torch.cat([middles[best, torch.arange(size, device=device)], own[..., None]], dim=2)


def _middles(middles_BN2: Tensor) -> Tensor:
    """A blot of sum one at each middle, `[B, N, 17, 17]`."""
    cells = (torch.arange(FINE_GRID, device=middles_BN2.device) + 0.5) * 2 / FINE_GRID - 1
    near = (-((middles_BN2[..., None] - cells) * FINE_GRID / 2 / SPREAD) ** 2 / 2).exp()
    blots = near[:, :, 1, :, None] * near[:, :, 0, None, :]
    return blots / blots.sum((2, 3), keepdim=True)


def _placed(pieces: Tensor, place: Tensor, squeeze: Tensor, lean: Tensor) -> Tensor:
    """In its place, mirrored or not. RGB is not premultiplied."""
    size, device = len(pieces), pieces.device
    x, y, own = place.unbind(1)
    flip = (torch.rand(size, device=device) < 0.4).float() * -2 + 1
    cos, sin = lean.cos(), lean.sin()
    wide, high = own * squeeze.clamp(max=1), own / squeeze.clamp(min=1)
    a, b = flip * cos / wide, flip * sin / high
    c, d = -sin / wide, cos / high
    matrix = torch.stack([torch.stack([a, b, -(a * x + b * y)], 1), torch.stack([c, d, -(c * x + d * y)], 1)], 1)
    solid = torch.cat([pieces[:, :3] * pieces[:, 3:], pieces[:, 3:]], dim=1)
    placed = _sampled(solid, matrix)
    return torch.cat([placed[:, :3] / placed[:, 3:].clamp(min=1e-3), placed[:, 3:]], dim=1).clamp(0, 1)


def _tinted(pieces: Tensor, recoloured: float) -> Tensor:
    """Other hands take other colours: of some the hue is turned, the colour taken away, the contrast changed."""
    size, device = len(pieces), pieces.device
    rgb, alpha = pieces[:, :3], pieces[:, 3:]
    grey = _grey(rgb)
    saturation = torch.rand(size, 1, 1, 1, device=device) * 1.4
    saturation = torch.where(torch.rand_like(saturation) < 0.5, torch.ones_like(saturation), saturation)
    rgb = grey + (rgb - grey) * saturation
    turned = torch.rand(size, device=device) < recoloured
    orders = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]], device=device)
    order = orders[torch.where(turned, torch.randint(6, (size,), device=device), 0)]
    rgb = rgb.gather(1, order[:, :, None, None].expand_as(rgb))
    contrast = (torch.randn(size, 1, 1, 1, device=device) * 0.25).exp()
    shift = torch.randn(size, 3, 1, 1, device=device) * 0.06
    rgb = (rgb - 0.5) * contrast + 0.5 + shift
    few = torch.rand(size, 1, 1, 1, device=device) < 0.12
    return torch.cat([torch.where(few, (rgb * 3).round() / 3, rgb).clamp(0, 1), alpha], dim=1)


def outlined(pieces: Tensor) -> Tensor:
    """Clip-art has black outlines where emoji have none: some pieces get them, and a few are nothing else."""
    size, device = len(pieces), pieces.device
    solid = torch.cat([pieces[:, :3] * pieces[:, 3:] + 1 - pieces[:, 3:], pieces[:, 3:]], dim=1)
    thin = F.max_pool2d(solid, 3, 1, 1) + F.max_pool2d(-solid, 3, 1, 1)  # the range among neighbours: where edges are
    thick = F.max_pool2d(thin, 3, 1, 1)
    chance = torch.rand(4, size, 1, 1, 1, device=device)
    edges = torch.where(chance[0] < 0.5, thin, thick).amax(1, keepdim=True)
    faint = 0.15 + 0.25 * torch.rand(size, 1, 1, 1, device=device)
    lines = ((edges - faint) * 4).clamp(0, 1) * (chance[1] < OUTLINED)
    rgb = torch.where((chance[1] < OUTLINED) & (chance[2] < EMPTY), torch.ones_like(pieces[:, :3]), pieces[:, :3])
    rgb = torch.where(chance[3] < SILHOUETTE, torch.rand(size, 3, 1, 1, device=device) * 0.3, rgb * (1 - lines))
    return torch.cat([rgb, torch.maximum(pieces[:, 3:], lines)], dim=1)


def _squeezed(size: int, device: torch.device) -> Tensor:
    """Width over height of what was square, most of it that of wide and tall pictures squeezed into a square."""
    flat = torch.rand(size, device=device) < 0.2
    aspect = torch.where(flat, 0.0, (torch.rand(size, device=device) * 2 - 1) * math.log(WIDEST))
    return (aspect + torch.randn(size, device=device) * 0.1).exp()


def _lit(pictures: Tensor) -> Tensor:
    """Light, warmth, contrast, blur and noise over the whole."""
    size, device = len(pictures), pictures.device
    dim, bright = map(math.log, LIGHT)
    light = torch.where(torch.rand(size, 1, 1, 1, device=device) < 0.5,
                        (dim + (bright - dim) * torch.rand(size, 1, 1, 1, device=device)).exp(), 1.0)
    warm = torch.randn(size, 1, 1, 1, device=device) * 0.07
    tint = 1 + warm * torch.tensor([1.0, 0.0, -1.0], device=device).view(1, 3, 1, 1)
    pictures = pictures * light * tint
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = mean + (pictures - mean) * (torch.randn(size, 1, 1, 1, device=device) * 0.2).exp()
    pictures = torch.where(torch.rand(size, 1, 1, 1, device=device) < 0.06, _grey(pictures), pictures)
    soft = F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    pictures = torch.where(torch.rand(size, 1, 1, 1, device=device) < 0.25, soft, pictures)
    noise = torch.rand(size, 1, 1, 1, device=device) * 0.03
    return (pictures + noise * torch.randn_like(pictures)).clamp(0, 1)


def _grey(rgb: Tensor) -> Tensor:
    return (rgb * torch.tensor(LUMA, device=rgb.device).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(rgb)
