"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL as graphs: one picture a run, of so many patches or fewer.

All that follows from the picture's grid is computed here, outside the graph: in which slot each patch goes, its rotary
angles, its position embedding, and which slots hold a patch at all. A graph is fixed to a number of slots, so a few of
them (256, 1024, 4096, ...) serve pictures of every size. Qwen2.5-VL's windows are blocks of consecutive slots, padded
to equal length: window attention is then one batched product instead of a loop over lengths.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from engines.export.copies import with_float32_norms
from engines.export.graph import Graph

_OF_THE_LAYOUT = (
    "spatial_merge_size", "patch_size", "window_size", "fullatt_block_indexes", "num_grid_per_side",
    "interpolation_mode", "interpolation_align_corners",
)
_TABLES = ("rotary_pos_emb", "pos_embed")
_EMPTY = -1e4  # far below any score, and within float16


class ImageTooLarge(ValueError):
    """The picture has more patches than the graph has slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the patches of one picture go."""

    slot_of_patch: torch.Tensor
    """int64 [patches]: the slot of each patch, in the order in which the image processor gives them."""
    inputs: Mapping[str, torch.Tensor]
    """The graph's inputs that follow from the grid."""

    def fill(self, pixels_NP: torch.Tensor) -> dict[str, torch.Tensor]:
        """All inputs of the graph, for the patches [patches, pixels of one]."""
        slots = pixels_NP.new_zeros(len(self.inputs["occupied"]), pixels_NP.shape[1])
        slots[self.slot_of_patch] = pixels_NP
        return {"pixels": slots} | dict(self.inputs)

    def read(self, merged_SC: torch.Tensor, unit: int) -> torch.Tensor:
        """What the graph gives for each group of `unit` patches [slots / unit, C], in the processor's order."""
        return merged_SC[self.slot_of_patch[::unit] // unit]


def slots_needed(tower: Any, grid_thw: torch.Tensor) -> int:
    """How many slots the picture of this grid [1, 3] takes up."""
    return int(_slots(tower, grid_thw).max()) + 1


def on_host(tower: Any) -> Any:
    """What laying pictures out takes of the tower, on the CPU, wherever the tower is."""
    kept = {name: getattr(tower, name) for name in _OF_THE_LAYOUT if hasattr(tower, name)}
    tables = {name: copy.deepcopy(getattr(tower, name)).cpu() for name in _TABLES if hasattr(tower, name)}
    return SimpleNamespace(**kept, **tables)


def layout_of(tower: Any, grid_thw: torch.Tensor, slots: int, *, dtype: torch.dtype | None = None) -> Layout:
    """Lay the picture of the grid [1, 3] (frames, rows, columns) out over `slots`.

    Args:
        tower: or what `on_host` keeps of it, with `dtype`.
        dtype: of the graph; default the tower's.

    Raises:
        ImageTooLarge: it does not fit.
    """
    place = _slots(tower, grid_thw)
    if int(place.max()) >= slots:
        raise ImageTooLarge(f"a picture of {len(place)} patches needs {int(place.max()) + 1} slots, not {slots}")
    dtype = dtype or tower.patch_embed.proj.weight.dtype
    occupied = torch.zeros(slots)
    occupied[place] = 1.0
    positions = get_vision_position_ids(grid_thw, tower.spatial_merge_size)
    inputs = {"occupied": occupied}
    for name, table in zip(("cos", "sin"), tower.rotary_pos_emb(occupied, positions), strict=True):
        inputs[name] = _spread(table.float(), place, slots)
    if hasattr(tower, "pos_embed"):
        inputs["positions"] = _spread(_learned_positions(tower, grid_thw).to(dtype), place, slots)
    return Layout(slot_of_patch=place, inputs=inputs)


def slots_for(tower: Any, grid_thw: torch.Tensor) -> int:
    """Slots of the smallest graph for the picture of this grid [1, 3]."""
    block = _block(tower)
    return -(-slots_needed(tower, grid_thw) // block) * block


def check_slots(tower: Any, slots: int) -> None:
    """Raise `ValueError` where no graph can have so many."""
    if slots < 1 or slots % _block(tower):
        raise ValueError(f"{slots} slots are not a multiple of {_block(tower)}")


def tower_graph(tower: Any, slots: int, name: str = "vision") -> Graph:
    """The tower (`model.visual`) for `slots` patches, a multiple of the window where it has windows.

    Its example is a square picture that fills at most the slots. Output `features` [slots / 4, C]; Qwen3-VL's deepstack
    features follow as `deepstack_0`, `deepstack_1`, ...
    """
    check_slots(tower, slots)
    side = tower.spatial_merge_size
    while slots_needed(tower, _square(side + tower.spatial_merge_size)) <= slots:
        side += tower.spatial_merge_size
    weight = tower.patch_embed.proj.weight
    with torch.inference_mode():
        layout = layout_of(tower, _square(side), slots)
        pixels = torch.randn(side * side, weight[0].numel()).to(weight.dtype)
        deepstack = len(getattr(tower, "deepstack_visual_indexes", ()))
        return Graph(
            name=name, module=TowerGraph(tower), inputs=layout.fill(pixels),
            outputs=("features", *(f"deepstack_{index}" for index in range(deepstack))),
        )


class TowerGraph(nn.Module):
    """pixels [S, P], occupied, cos, sin [S, D] float32 (and Qwen3's positions [S, C]) to features [S / 4, C'].

    Norms, rotation and its tables are float32 whatever the weights. Slots that hold nothing give numbers that mean
    nothing; no other slot sees them.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower: Any = with_float32_norms(tower)
        self.window = _block(tower) if hasattr(tower, "fullatt_block_indexes") else None
        self.whole = frozenset(getattr(tower, "fullatt_block_indexes", ()))
        self.deep = tuple(getattr(tower, "deepstack_visual_indexes", ()))

    def forward(
        self, pixels: torch.Tensor, occupied: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        projection = self.tower.patch_embed.proj
        # The convolution's kernel is the whole patch: it is a matrix product.
        x = F.linear(pixels, projection.weight.flatten(1), projection.bias)
        if positions is not None:
            x = x + positions
        absent = (1.0 - occupied) * _EMPTY
        deepstack = []
        for index, block in enumerate(self.tower.blocks):
            length = self.window if self.window and index not in self.whole else len(occupied)
            x = x + attend(block.attn, block.norm1(x), absent, cos, sin, length)
            x = x + block.mlp(block.norm2(x))
            if index in self.deep:
                deepstack.append(self.tower.deepstack_merger_list[self.deep.index(index)](x))
        return self.tower.merger(x), *deepstack


def attend(
    attention: Any, x_SC: torch.Tensor, absent_S: torch.Tensor, cos_SD: torch.Tensor, sin_SD: torch.Tensor, length: int
) -> torch.Tensor:
    """Attention among each `length` consecutive slots, blind to absent ones."""
    query, key, value = attention.qkv(x_SC).unflatten(1, (3, attention.num_heads, -1)).unbind(1)
    query, key = _rotate(query, cos_SD, sin_SD), _rotate(key, cos_SD, sin_SD)
    query, key, value = (x.unflatten(0, (-1, length)).transpose(1, 2) for x in (query, key, value))
    # As many rows as there are queries: the fused operator of TensorRT broadcasts none.
    mask = absent_S.to(query.dtype).reshape(-1, 1, 1, length).expand(-1, 1, length, length)
    out = F.scaled_dot_product_attention(query, key, value, mask)
    return attention.proj(out.transpose(1, 2).flatten(0, 1).flatten(1))


def _rotate(x_SHD: torch.Tensor, cos_SD: torch.Tensor, sin_SD: torch.Tensor) -> torch.Tensor:
    """Rotate channel i with channel i + D / 2, in float32."""
    wide = x_SHD.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (wide * cos_SD[:, None] + turned * sin_SD[:, None]).to(x_SHD.dtype)


def _square(side: int) -> torch.Tensor:
    return torch.tensor([[1, side, side]])


def _block(tower: Any) -> int:
    """Slots that stay together: a window, or the patches that are merged into one."""
    unit = tower.spatial_merge_size**2
    if not hasattr(tower, "fullatt_block_indexes"):
        return unit
    return (tower.window_size // tower.patch_size // tower.spatial_merge_size) ** 2 * unit


def _slots(tower: Any, grid_thw: torch.Tensor) -> torch.Tensor:
    """The slot of each patch."""
    if int(grid_thw[:, 0].sum()) != 1 or len(grid_thw) != 1:
        raise ValueError("one picture a run: attention would have to keep several apart")
    patches = int(grid_thw.prod())
    if not hasattr(tower, "fullatt_block_indexes"):
        return torch.arange(patches)
    unit, block = tower.spatial_merge_size**2, _block(tower)
    order, bounds = get_vision_window_index(
        grid_thw, spatial_merge_size=tower.spatial_merge_size, window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    starts = torch.cat([torch.arange(end - begin) + index * block
                        for index, (begin, end) in enumerate(pairwise(bounds.tolist()))])
    place = torch.empty(patches // unit, dtype=torch.int64)
    place[order] = starts[::unit] // unit
    return (place[:, None] * unit + torch.arange(unit)).flatten()


def _spread(rows: torch.Tensor, place: torch.Tensor, slots: int) -> torch.Tensor:
    spread = rows.new_zeros(slots, rows.shape[1])
    spread[place] = rows
    return spread


def _learned_positions(tower: Any, grid_thw: torch.Tensor) -> torch.Tensor:
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid_thw, num_grid_per_side=tower.num_grid_per_side, mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners, spatial_merge_size=tower.spatial_merge_size,
    )
    return (tower.pos_embed(indices) * weights[:, :, None]).sum(1)
