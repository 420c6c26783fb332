"""Operations over the rows (tokens) of a transformer: the reference in torch, and the kernel where there is one.

A quantised row is float8 (e4m3) with one float32 scale a row, as `torch._scaled_mm` takes it.
"""

import torch
import torch.nn.functional as F

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


def residual_norm(
    x_NC: torch.Tensor, update_NC: torch.Tensor | None, gate_C: torch.Tensor | None, factor_C: torch.Tensor,
    shift_C: torch.Tensor, *, eps: float, quantise: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Add an update to the stream, then layer-norm it with a factor and a shift a channel.

    Args:
        update_NC: None leaves the stream as it is.
        gate_C: float32 weight of the update, or None for 1.
        factor_C, shift_C: float32; of a modulated norm, 1 + scale and shift.

    Returns:
        The new stream, the normed rows (float8 where `quantise`), their scales [N, 1] or None.
    """
    if _by_kernel(x_NC):
        from video_service.layers.kernels import rows as row_kernels

        return row_kernels.residual_norm(x_NC, update_NC, gate_C, factor_C, shift_C, eps, quantise)
    if update_NC is not None:
        update = update_NC.float() if gate_C is None else update_NC * gate_C
        x_NC = (x_NC.float() + update).to(x_NC.dtype)
    normed = F.layer_norm(x_NC.float(), x_NC.shape[-1:], eps=eps) * factor_C + shift_C
    normed = normed.to(x_NC.dtype)
    if quantise:
        return x_NC, *quantise_rows(normed)
    return x_NC, normed, None


def rms_rotate_(
    x_NC: torch.Tensor, weight_PC: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None, *, eps: float
) -> torch.Tensor:
    """RMS-norm the first P parts of each row apart, then rotate neighbouring channels; may write in place.

    Args:
        x_NC: at least P * C wide (queries, keys, then what is left alone); N is batch * tokens.
        rotary: float32 cos and sin [tokens, head_dim / 2], alike for all heads, or None for no rotation.
    """
    if _by_kernel(x_NC):
        from video_service.layers.kernels import rows as row_kernels

        return row_kernels.rms_rotate_(x_NC, weight_PC, rotary, eps)
    parts, width = weight_PC.shape
    done = [
        _rotate(F.rms_norm(x_NC[:, part * width : (part + 1) * width], (width,), weight_PC[part], eps), rotary)
        for part in range(parts)
    ]
    return torch.cat([*done, x_NC[:, parts * width :]], dim=1)


def _rotate(x_NC: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    if rotary is None:
        return x_NC
    cos, sin = rotary
    even, odd = x_NC.float().reshape(-1, cos.shape[0], x_NC.shape[1] // (2 * cos.shape[1]), cos.shape[1], 2).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).reshape(x_NC.shape).to(x_NC.dtype)


def quantise_rows(x_NC: torch.Tensor, *, gelu: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as float8 and their scales [N, 1]; with `gelu`, of the rows' GELU (tanh)."""
    if _by_kernel(x_NC):
        from video_service.layers.kernels import rows as row_kernels

        return row_kernels.quantise_rows(x_NC, gelu)
    x = (F.gelu(x_NC, approximate="tanh") if gelu else x_NC).float()
    scale = x.abs().amax(1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def _by_kernel(x: torch.Tensor) -> bool:
    return x.is_cuda and x.dtype == torch.bfloat16 and x.stride(-1) == 1
