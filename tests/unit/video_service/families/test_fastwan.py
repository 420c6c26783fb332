"""FastWan2.1 from its published layout to latents, against FastVideo's rules written out over diffusers' network."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from tests.checkpoints import fastvideo
from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.unit.video_service.conftest import load_tiny, network
from video_service.layers.wan.fast import FastTransformer
from web.worker.errors import ModelUnavailable

WIDTH, HEIGHT, FRAMES = 144, 80, 9
GRID = (3, 5, 9)
"""135 tokens in 6 tiles, none of them full; two are attended to."""
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


class WrittenOutVsa:
    """Of one block: diffusers' self-attention with FastVideo's formula in it."""

    def __init__(self, gate: nn.Linear) -> None:
        self._gate = gate

    def __call__(self, attn: Any, x: torch.Tensor, _text: Any, _mask: Any, rotary: Any) -> torch.Tensor:
        q, k, v, gate = (part.unflatten(2, (attn.heads, -1)) for part in (
            attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(x)), attn.to_v(x), self._gate(x)))
        q, k = (_rotated(part, *rotary) for part in (q, k))
        out = fastvideo.video_sparse_attention(q, k, v, gate, GRID, 0.8)
        return attn.to_out[0](out.flatten(2).to(x.dtype))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    one, two = x.double().unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2].double(), sin[..., 1::2].double()
    return torch.stack([one * c - two * s, one * s + two * c], -1).flatten(-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published: a Wan whose index names FastVideo's pipeline, and whose blocks have a gate."""
    folder = save_tiny_wan(tmp_path_factory.mktemp("fastwan") / "wan", task="t2v", vae_scale=8, card=None)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanDMDPipeline"}))
    weights, generator = load_file(folder / WEIGHTS), torch.Generator().manual_seed(5)
    for block in range(2):
        name = f"blocks.{block}.to_gate_compress"
        weights[f"{name}.weight"] = torch.randn(32, 32, generator=generator) / 4
        weights[f"{name}.bias"] = torch.randn(32, generator=generator)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


@torch.no_grad()
def written_out(folder: Path, request: Any) -> torch.Tensor:
    transformer: Any = WanTransformer3DModel.from_pretrained(folder / "transformer")
    weights = load_file(folder / WEIGHTS)
    for index, block in enumerate(transformer.blocks):
        gate = nn.Linear(32, 32)
        gate.load_state_dict({kind: weights[f"blocks.{index}.to_gate_compress.{kind}"] for kind in ("weight", "bias")})
        block.attn1.processor = WrittenOutVsa(gate)
    pipeline: Any = WanPipeline.from_pretrained(folder, transformer=transformer)
    text, _ = pipeline.encode_prompt(request.prompt, do_classifier_free_guidance=False, max_sequence_length=512)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    noise = torch.randn(1, 16, 3, HEIGHT // 8, WIDTH // 8, generator=generator)

    def velocity(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return transformer(x, torch.tensor([timestep]), text, return_dict=False)[0]

    return fastvideo.dmd(velocity, noise, generator)


def test_latents_are_those_of_the_rules_written_out(folder: Path) -> None:
    request = a_request(width=WIDTH, height=HEIGHT, num_frames=FRAMES, sampling={"sampler": "dmd", "steps": 3})
    [(latents, frames)] = ours(load_tiny(folder).model, request)
    torch.testing.assert_close(latents, written_out(folder, request).float(), rtol=1e-4, atol=1e-4)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_its_spec_is_of_three_steps_without_guidance_and_says_how_it_attends(folder: Path) -> None:
    deployed = load_tiny(folder)
    info = deployed.info
    assert (info.family, info.tasks, info.samplers, info.steps.default) == ("fastwan2.1", ["t2v"], ["dmd"], 3)
    assert (info.guidance_scale.maximum, info.sizes[0], info.num_frames.default) == (1.0, "832x448", 61)
    assert "sparse attention to 20% of the tiles, a gated coarse one beside it" in info.engine_reason
    assert isinstance(network(deployed), FastTransformer)


def test_one_of_another_wan_is_refused_and_not_rendered_as_that(folder: Path, tmp_path: Path) -> None:
    """FastWan2.2: with a Wan2.2's fifty steps and guidance its frames would be burnt."""
    other = Path(shutil.copytree(folder, tmp_path / "fastwan"))
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"expand_timesteps": True}))
    with pytest.raises(ModelUnavailable, match="is a WanDMDPipeline; this service renders"):
        load_tiny(other)


def test_one_without_its_gates_is_refused(folder: Path) -> None:
    """Filled up with made-up ones its frames would not be the model's."""
    whole = (folder / WEIGHTS).read_bytes()
    weights = load_file(folder / WEIGHTS)
    save_file({name: x for name, x in weights.items() if "gate" not in name}, folder / WEIGHTS, {"format": "pt"})
    try:
        with pytest.raises(ModelUnavailable, match=r"lacks 4 weights, such as blocks\.0\.to_gate_compress"):
            load_tiny(folder)
    finally:
        (folder / WEIGHTS).write_bytes(whole)
