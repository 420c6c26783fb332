"""What two clips are compared by, pixel by pixel: colours, grain, detail, and what changes behind a moving camera."""

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES_SEEN = 3
PATCH_PX = 8
MEAN_PX = 4
DETAIL_PX = 9
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
GREY = (0.299, 0.587, 0.114)


def error_of(ours: Tensor, true: Tensor) -> Tensor:
    """Mean absolute error, and half of that of the differences to the next pixel."""
    error = ours - true
    return error.abs().mean() + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())


def means_error(ours: Tensor, true: Tensor) -> Tensor:
    """Mean absolute error of the means over 4 x 4 pixels."""
    return F.avg_pool3d(ours - true, (1, MEAN_PX, MEAN_PX)).abs().mean()


def grain(video_BCTHW: Tensor) -> Tensor:
    """Local energy of the Laplacian: its root mean square over patches of 8 x 8 pixels of each grey frame."""
    weights = torch.tensor(GREY, device=video_BCTHW.device).view(1, 3, 1, 1, 1)
    grey = (video_BCTHW * weights).sum(1, keepdim=True).transpose(1, 2).flatten(0, 1)
    kernel = torch.tensor(LAPLACIAN, device=grey.device)[None, None]
    return (F.avg_pool2d(F.conv2d(grey, kernel).square(), PATCH_PX) + 1e-5).sqrt()


def detail(video: Tensor) -> Tensor:
    """What a frame has beyond its means over 9 x 9 pixels: the discriminator may not change colours."""
    frames = video.transpose(1, 2).flatten(0, 1)
    means = F.avg_pool2d(frames, DETAIL_PX, 1, DETAIL_PX // 2, count_include_pad=False)
    return video - means.view(len(video), -1, *means.shape[1:]).transpose(1, 2)


def in_a_row(video: Tensor, starts: list[int]) -> Tensor:
    """Frames `start` to `start + 2` of each clip, as channels: [B * len(starts), 9, H, W]."""
    return torch.cat([video[:, :, start : start + FRAMES_SEEN].flatten(1, 2) for start in starts])


def carried_error(video: Tensor, camera: Tensor, starts: list[int]) -> Tensor:
    """|frame t + 1 - frame t as the camera moved it|, mean of the colours, [B * len(starts), H, W]; 1 from outside."""
    height, width = video.shape[-2:]
    ys = torch.arange(height, device=video.device) - (height - 1) / 2
    xs = torch.arange(width, device=video.device) - (width - 1) / 2
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    half = torch.tensor([width / 2, height / 2], device=video.device)
    errors = []
    for start in starts:
        world = torch.einsum("brc,hwc->bhwr", camera[:, start + 1].float(), places)
        before = camera[:, start].float()
        back = torch.einsum("brc,bhwc->bhwr", torch.linalg.inv(before[..., :2]), world - before[:, None, None, :, 2])
        grid = back / half
        carried = F.grid_sample(video[:, :, start], grid, mode="bicubic", padding_mode="border", align_corners=False)
        error = (video[:, :, start + 1] - carried).abs().mean(1)
        errors.append(torch.where((grid.abs() > 1).any(-1), torch.ones_like(error), error))
    return torch.cat(errors)
