"""TurboWan2.1 T2V and TurboWan2.2 I2V: Wans taught to attend sparsely (SLA) and to denoise in 1 to 4 rCM steps without
guidance.

Source: https://github.com/thu-ml/TurboDiffusion. Rendered from the folder that `stillmotion convert` writes: diffusers'
layout, with `"sla": {"topk": 0.1}` in each transformer's `config.json` and its blocks' `proj_l` in a file beside it.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from contracts.models import FloatRange, IntRange, ModelSpec
from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver
from video_service.families.convert.transformer import SLA_FILE, SLA_MARK, projection_names
from video_service.families.wan.files import (
    WAN_CONFIGS,
    WAN_PARTS,
    has_experts,
    has_frame_times,
    is_wan,
    load_wan,
    wan_spec,
)
from video_service.families.wan.model import WanConditioning, WanModel
from video_service.families.wan.wan22_a14b import EXPERT_PARTS, ExpertsModel, boundary_of
from video_service.layers.attention.sla import Sla
from video_service.render.solvers import RCM_STEPS, RcmSolver
from video_service.weights.checkpoint import CheckpointFiles
from web.worker.errors import ModelUnavailable

_MOST_STEPS = RCM_STEPS["sde"].maximum
_SIZES_480P = ["832x480", "480x832", "640x640", "640x480", "480x640"]
_SIZES_720P = ["1280x720", "720x1280", "960x960", "960x720", "720x960"]


class TurboWan21:
    """The family. No engines: the choice of key blocks depends on the data, and the dense graph is another model."""

    name = "turbowan2.1"
    render_graphs: Sequence[str] = ()
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return _is_taught(files) and not has_experts(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(WAN_CONFIGS, WAN_PARTS)
        _topk(files, "transformer")
        return wan_spec(
            files, self.name, profile="turbowan", tasks=["t2v"], sizes=_SIZES_480P, **_few_steps())

    def load(self, files: CheckpointFiles, placement: Placement) -> WanModel:
        slas, placement, form = _attention(files, placement, ["transformer"])
        fields = load_wan(self.spec(files), files, placement, WAN_PARTS, sparse=slas)
        return TurboWanModel(**_with_form(fields, form))

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {}

    def graphs(self, model: WanModel, shape: ClipShape) -> list[Graph]:
        return []


class TurboWan22(TurboWan21):
    """The family of two experts, which animates an image: latents of [image, zeros...] beside the noise, no CLIP."""

    name = "turbowan2.2"

    def claims(self, files: CheckpointFiles) -> bool:
        return _is_taught(files) and has_experts(files)

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require((*WAN_CONFIGS, "transformer_2/config.json"), EXPERT_PARTS)
        for part in ("transformer", "transformer_2"):
            _topk(files, part)
        one = FloatRange(minimum=1.0, maximum=1.0, default=1.0)
        return wan_spec(
            files, self.name, profile="wan2.2", sizes=[*_SIZES_720P, *_SIZES_480P], guidance_scale_2=one,
            **_few_steps())

    def load(self, files: CheckpointFiles, placement: Placement) -> WanModel:
        slas, placement, form = _attention(files, placement, ["transformer", "transformer_2"])
        fields = load_wan(self.spec(files), files, placement, EXPERT_PARTS, sparse=slas)
        return TurboExpertsModel(**_with_form(fields, form), boundary=boundary_of(files))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurboWanModel(WanModel):
    """Its solver tells the network rounded times."""

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        return _telling_rounded(WanModel.solver(self, batch, given))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurboExpertsModel(ExpertsModel):
    """The same of two experts: of 4 steps the first two are for high noise, with 1 or 2 the other never runs."""

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        return _telling_rounded(WanModel.solver(self, batch, given))


def _telling_rounded(solver: Solver) -> Solver:
    assert isinstance(solver, RcmSolver)
    solver.timesteps = [told(timestep) for timestep in solver.timesteps]
    return solver


def told(timestep: float) -> float:
    """What TurboDiffusion's network is told of a timestep: it in bfloat16. The state moves by the exact one."""
    return float(torch.tensor(timestep, dtype=torch.float64).to(torch.bfloat16))


def _is_taught(files: CheckpointFiles) -> bool:
    return SLA_MARK in files.find_json("transformer/config.json") and is_wan(files) and not has_frame_times(files)


def _few_steps() -> dict[str, Any]:
    return {
        "samplers": ["sde", "ode"], "steps": IntRange(minimum=1, maximum=_MOST_STEPS, default=_MOST_STEPS),
        "guidance_scale": FloatRange(minimum=1.0, maximum=1.0, default=1.0),
    }


def _attention(
    files: CheckpointFiles, placement: Placement, parts: Sequence[str]
) -> tuple[dict[str, Sla], Placement, str | None]:
    """How each transformer attends, where it is placed for that, and what to say of it. Raises `ModelUnavailable`.

    Dense, without `proj_l`, where all key blocks would be kept or nothing on the device attends sparsely.
    """
    shares = {part: placement.layers.topk or _topk(files, part) for part in parts}
    dense = "as topk 1 asks" if min(shares.values()) == 1 else _why_dense(placement)
    if dense is None:
        return {
            part: Sla(topk=topk, projections=_projections(files, part, placement.device) if placement.weights else None)
            for part, topk in shares.items()
        }, placement, None
    plain = replace(placement, layers=replace(placement.layers, topk=None))
    return {}, plain, f"dense attention, without the linear branch it was taught with: {dense}"


def _why_dense(placement: Placement) -> str | None:
    """Why sparse attention cannot run, or None: off CUDA, and in float32, torch's own operations do it."""
    if placement.device.type != "cuda" or importlib.util.find_spec("triton") is not None:
        return None
    return "its kernels need Triton, which this build of torch does not bring"


def _with_form(fields: dict[str, Any], form: str | None) -> dict[str, Any]:
    said = [part for part in (fields.get("form"), form) if part]
    return fields | {"form": ", ".join(said) or None}


def _topk(files: CheckpointFiles, part: str) -> float:
    """The share of key blocks kept that the checkpoint says. Raises `ModelUnavailable`."""
    mark: Any = files.read_json(f"{part}/config.json").get(SLA_MARK)
    topk = mark.get("topk") if isinstance(mark, dict) else None
    if not isinstance(topk, int | float) or not 0 < topk <= 1:
        raise ModelUnavailable(
            f"{files.name}: \"{SLA_MARK}\" in {part}/config.json needs a topk above 0, up to 1, not {mark!r}."
        )
    return float(topk)


def _projections(files: CheckpointFiles, part: str, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each block's `proj_l`. Raises `ModelUnavailable`."""
    config = files.read_json(f"{part}/config.json")
    names = [projection_names(index) for index in range(config["num_layers"])]
    path = files.fetch([part]) / part / SLA_FILE
    try:
        found = load_file(path, device=str(device))
        if set(found) != {name for pair in names for name in pair}:
            raise ValueError(f"it holds other weights than the proj_l of {len(names)} blocks")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelUnavailable(f"{path} cannot be used: {error}; convert the published file again.") from error
    return [(found[weight], found[bias]) for weight, bias in names]
