"""TurboWan2.1 T2V: a Wan2.1 taught to attend sparsely (SLA) and to denoise in 1 to 4 rCM steps without guidance.

Source: https://github.com/thu-ml/TurboDiffusion. Rendered from the folder that `stillmotion convert` writes: diffusers'
layout, with `"sla": {"topk": 0.1}` in `transformer/config.json` and each block's `proj_l` in a file beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from contracts.models import FloatRange, IntRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver
from video_service.families.convert.transformer import SLA_FILE, SLA_MARK, projection_names
from video_service.families.wan import WanConditioning, WanModel
from video_service.families.wan_files import (
    WAN_CONFIGS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.layers.wan.transformer import Sla
from video_service.render.solvers import RCM_STEPS, RcmSolver
from video_service.weights.checkpoint import CheckpointFiles
from web.worker.errors import ModelUnavailable

_SIZES = ["832x480", "480x832", "640x640", "640x480", "480x640"]
_MOST_STEPS = RCM_STEPS["sde"].maximum


class TurboWan21:
    """The family. No engines: the choice of key blocks depends on the data, and the dense graph is another model."""

    name = "turbowan2.1"
    render_graphs = ()

    def claims(self, files: CheckpointFiles) -> bool:
        taught = SLA_MARK in files.find_json("transformer/config.json")
        return taught and is_wan(files) and not has_experts(files) and not has_frame_times(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        _topk(files)
        return wan_spec(
            files, self.name, profile="turbowan", tasks=["t2v"], sizes=_SIZES, samplers=["sde", "ode"],
            steps=IntRange(minimum=1, maximum=_MOST_STEPS, default=_MOST_STEPS),
            guidance_scale=FloatRange(minimum=1.0, maximum=1.0, default=1.0),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "TurboWanModel":
        topk = placement.layers.topk or _topk(files)
        projections = _projections(files, placement.device) if placement.weights else None
        sla = Sla(topk=topk, projections=projections)
        return TurboWanModel(**load_wan(self.spec(files), files, placement, WAN_PARTS, sla=sla))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: "TurboWanModel", shape: ClipShape) -> list[Graph]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class TurboWanModel(WanModel):
    """Its solver tells the network rounded times."""

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        solver = WanModel.solver(self, batch, given)
        assert isinstance(solver, RcmSolver)
        solver.timesteps = [told(timestep) for timestep in solver.timesteps]
        return solver


def told(timestep: float) -> float:
    """What TurboDiffusion's network is told of a timestep: it in bfloat16. The state moves by the exact one."""
    return float(torch.tensor(timestep, dtype=torch.float64).to(torch.bfloat16))


def _topk(files: CheckpointFiles) -> float:
    """The share of key blocks kept that the checkpoint says. Raises `ModelUnavailable`."""
    mark: Any = files.read_json("transformer/config.json")[SLA_MARK]
    topk = mark.get("topk") if isinstance(mark, dict) else None
    if not isinstance(topk, int | float) or not 0 < topk <= 1:
        raise ModelUnavailable(
            f"{files.name}: \"{SLA_MARK}\" in transformer/config.json needs a topk above 0, up to 1, not {mark!r}."
        )
    return float(topk)


def _projections(files: CheckpointFiles, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each block's `proj_l`. Raises `ModelUnavailable`."""
    config = files.read_json("transformer/config.json")
    names = [projection_names(index) for index in range(config["num_layers"])]
    path = files.fetch(["transformer"]) / "transformer" / SLA_FILE
    try:
        found = load_file(path, device=str(device))
        if set(found) != {name for pair in names for name in pair}:
            raise ValueError(f"it holds other weights than the proj_l of {len(names)} blocks")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelUnavailable(f"{path} cannot be used: {error}; convert the published file again.") from error
    return [(found[weight], found[bias]) for weight, bias in names]
