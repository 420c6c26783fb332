"""FlashAttention 4 (https://github.com/Dao-AILab/flash-attention), where `stillmotion[flash]` is installed, on Hopper.

On an H200, 32,760 tokens of 12 heads of 128: 9.0 ms where cuDNN's kernel takes 11.7; to a tenth of the keys 1.05 where
our own takes 1.27. Both sum up in float32; between them and torch lies the rounding of bfloat16.
"""

import functools
import importlib
import logging
import warnings
from typing import Any

import torch
import torch.nn.functional as F

log = logging.getLogger(__name__)

_MEASURED = (9, 0)  # compute capability
_LEAST_KEYS = 4096  # to few keys, as in cross-attention, cuDNN is quicker: 0.58 ms where this takes 0.84
_TILES = {128: (128, 176)}
"""Queries and keys of a tile by channels of a head; by its own choice the library takes 9.4 ms."""
_ALIKE = 0.02  # relative L2 of two bfloat16 results


def takes(q_BLHD: torch.Tensor, k_BLHD: torch.Tensor) -> bool:
    """Whether it is there for these, and quicker."""
    fits = q_BLHD.is_cuda and q_BLHD.dtype == torch.bfloat16 and q_BLHD.shape[-1] in (64, 128)
    return fits and k_BLHD.shape[1] >= _LEAST_KEYS and available()


@functools.cache
def available() -> bool:
    """Whether it is installed and computes here what torch computes; a warning says what went wrong."""
    if torch.cuda.get_device_capability() != _MEASURED or _library() is None:
        return False
    try:
        error = _error()
    except Exception as broken:  # its compiler and its launches raise classes of their own
        log.warning("FlashAttention is left out, it does not work here: %s", broken)
        return False
    alike = error <= _ALIKE
    if not alike:
        log.warning("FlashAttention is left out, its result is %.3f away from torch's", error)
    return alike


def flash_attention(q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor) -> torch.Tensor:
    """Attention of each head over all keys [B, L, H, D]."""
    return _forward(q_BLHD, k_BLHD, v_BLHD, tile_mn=_TILES.get(q_BLHD.shape[-1]))


def flash_attention_to_blocks(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, chosen: torch.Tensor,
    query_block: int, key_block: int,
) -> torch.Tensor:
    """Attention [B, L, H, D] of each block of queries to its `chosen` blocks of keys.

    Args:
        chosen: int32 [B * H, query blocks, kept], in order of place: the library looks only in the last one of a list
            for keys beyond the end.
    """
    from_zero = chosen.unflatten(0, (len(q_BLHD), -1)).contiguous()
    counts = torch.full_like(from_zero[..., 0], chosen.shape[-1])
    sparsity = importlib.import_module("flash_attn.cute.block_sparsity")
    blocks = sparsity.BlockSparseTensorsTorch(  # none is masked in part
        torch.zeros_like(counts), from_zero[..., :1].contiguous(), counts, from_zero,
        block_size=(query_block, key_block))
    return _forward(q_BLHD, k_BLHD, v_BLHD, block_sparse_tensors=blocks)


def _forward(*qkv: torch.Tensor, **options: Any) -> torch.Tensor:
    library = _library()
    if library is None:
        raise ModuleNotFoundError("flash_attn.cute")
    return library._flash_attn_fwd(*qkv, **options)[0]


@functools.cache
def _library() -> Any:
    """`flash_attn_func` chooses tiles by itself: what it calls takes them."""
    warnings.filterwarnings("ignore", message="Argument aux_data")  # its compiler's, about an argument left out
    try:
        return importlib.import_module("flash_attn.cute.interface")
    except ImportError:
        return None


@torch.no_grad()
def _error() -> float:
    """The worst relative L2 to torch of what is used here, for lengths that fill no tile."""
    generator = torch.Generator("cuda").manual_seed(0)
    worst = 0.0
    for dim in (64, 128):
        q, k, v = torch.randn(3, 1, 2, 500, dim, device="cuda", dtype=torch.bfloat16, generator=generator)
        whole = F.scaled_dot_product_attention(q, k, v)
        q, k, v, whole = (x.transpose(1, 2) for x in (q, k, v, whole))
        every = torch.arange(8, device="cuda", dtype=torch.int32).expand(2, 4, 8).contiguous()
        for found in (flash_attention(q, k, v), flash_attention_to_blocks(q, k, v, every, 128, 64)):
            worst = max(worst, float((found.float() - whole.float()).norm() / whole.float().norm()))
    return worst
